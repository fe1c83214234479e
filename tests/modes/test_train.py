"""``--mode=train`` with the folder of a run: what it resumes, and which commands it names where it cannot."""

from __future__ import annotations

import re
import shlex

import pytest
import rich.console
from absl import flags
from absl.testing import flagsaver

import hparams
from effnetv2_keras import cli
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.train import run_config
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.training import loop

SETTINGS = "train.epochs=3,runtime.log_every=7,train.varsexp=head|blocks"


def invocation(*arguments):
    """The invocation of a command line, as ``cli.main`` makes it."""
    with flagsaver.flagsaver():
        flags.FLAGS(["main.py", "--mode=train", *arguments])
        given = frozenset(name for name in cli.flag_table() if flags.FLAGS[name].present)
        return Invocation(cli.read_options(), rich.console.Console(quiet=True), (), hparams.load, given)


def check(folder, *arguments):
    """Starts ``--mode=train`` up to the check of the folder; returns the configuration."""
    config = run_config(invocation(f"--model_dir={folder}", *arguments))
    RunFolder(folder).check(config, open_splits(config.data))
    return config


@pytest.fixture
def photos(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "photos" / name / f"{number}.jpg").touch()
    return tmp_path / "photos"


@pytest.fixture
def run(photos, tmp_path):
    config = run_config(invocation(f"--model_dir={tmp_path}/run", f"--data_dir={photos}", f"--hparam_str={SETTINGS}"))
    RunFolder(tmp_path / "run").claim(config, open_splits(config.data))
    return tmp_path / "run"


def commands_in(message):
    return [shlex.split(line)[3:] for line in message.splitlines() if line.startswith("  python main.py --mode=train")]


def test_a_run_is_resumed_with_its_own_settings(run, photos):
    stored = RunFolder(run).config()
    assert check(run) == stored
    assert check(run, f"--data_dir={photos}") == stored  # without --hparam_str, whose settings are in the run
    assert check(run, "--model_name=efficientnetv2-nano", "--hparam_str=train.epochs=3") == stored
    assert check(run, "--dataset_cfg=folder", f"--data_dir={photos}", f"--hparam_str={SETTINGS}") == stored
    changed = check(run, "--hparam_str=runtime.log_every=9")
    assert changed == stored.override({"runtime.log_every": 9})


def test_the_data_of_a_run_is_known_by_its_content(run, photos, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("photos", "./photos/", f"{tmp_path}/link", "~/photos"):
        check(run, f"--data_dir={place}")
    assert "moved" not in caplog.text
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=rf"images of {run} are not at {photos} any more\. Put them back, or say"):
        check(run)
    check(run, "--data_dir=elsewhere")
    assert f"The data has moved from {photos} to elsewhere; its images are the same." in caplog.text


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--hparam_str=train.epochs=5,train.lr_base=0.5",), {"train.epochs": 5, "train.lr_base": 0.5}),
        (("--hparam_str=train.trainable_layers=none,train.freeze_bn=true,train.accumulation_steps=1|2",),
         {"train.freeze_bn": True, "train.accumulation_steps": (1, 2)}),
    ],
)  # fmt: skip
def test_other_settings_are_answered_with_commands_that_work(run, given, named):
    stored = RunFolder(run).config()
    with pytest.raises(RunFolderError) as error:
        check(run, *given)
    message = str(error.value)
    for key, value in named.items():
        assert re.search(rf"{key} was .* and is now {re.escape(repr(value))[:3]}", message)
    resume, new = commands_in(message)
    assert resume == [f"--model_dir={run}"]
    assert check(*(flag.partition("=")[2] for flag in resume)) == stored
    assert new[0] == f"--model_dir={run}_2"
    expected = stored.override({**named, "train.ft_init_ckpt": str(run)})
    assert run_config(invocation(*new)) == expected


def test_another_network_is_answered_with_a_new_run_of_it(run):
    (run.parent / "run_2").mkdir()
    with pytest.raises(
        RunFolderError, match="model.model_name was 'efficientnetv2-nano' and is now 'efficientnetv2-b1'"
    ) as error:
        check(run, "--model_name=efficientnetv2-b1")
    _, new = commands_in(str(error.value))
    assert new[0] == f"--model_dir={run}_3"
    config = run_config(invocation(*new))
    assert config == RunFolder(run).config().override({"model.model_name": "efficientnetv2-b1"})


def test_other_images_are_answered_with_a_new_run_on_them(run, photos, tmp_path):
    (photos / "cat" / "0.jpg").rename(photos / "cat" / "other.jpg")
    with pytest.raises(RunFolderError, match="checksum of the names and labels of the images") as error:
        check(run)
    message = str(error.value)
    assert f"To resume the run as it is with the images that it began with, in {photos}:" in message
    photos.rename(tmp_path / "more photos")
    with pytest.raises(RunFolderError, match="checksum of the names and labels of the images") as error:
        check(run, f"--data_dir={tmp_path}/more photos")
    _, new = commands_in(str(error.value))
    config = run_config(invocation(*new))
    assert (config.data.data_dir, config.train.ft_init_ckpt) == (f"{tmp_path}/more photos", str(run))


def test_a_value_with_a_comma_goes_into_a_file(run):
    settings = run.parent / "settings.yaml"
    settings.write_text("train: {varsexp: 'a{1,2}'}")
    with pytest.raises(
        RunFolderError, match="and in a YAML file, named by another --hparam_str: train.varsexp"
    ) as error:
        check(run, f"--hparam_str={settings}")
    _, new = commands_in(str(error.value))
    assert run_config(invocation(*new)).train.ft_init_ckpt == str(run)


def test_a_finished_run_says_its_result_and_what_can_follow(run):
    config = RunFolder(run).config()
    result = {"epoch": 3.0, "step": 9, "num_images": 4, "top1": 0.75, "top5": 1.0}
    text = loop._finished(RunFolder(run), config, open_splits(config.data), result)
    assert (
        f"{run} was finished before, so nothing was trained.\nepoch 3.0, step 9: evaluated 4 of 4 images: top-1 0.75"
        in text
    )
    [more] = commands_in(text)
    assert run_config(invocation(*more)) == config.override({"train.ft_init_ckpt": str(run)})
    assert f"python main.py --mode=eval --model_dir={run}\n" in text
