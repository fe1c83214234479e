"""The command line as a user runs it: in processes where the process matters, in this one otherwise."""

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import logging as standard_logging
import pathlib
import re
import subprocess
import sys

import pytest
import rich.console
from absl import flags, logging
from absl.testing import flagsaver

import hparams
from effnetv2_keras import cli
from effnetv2_keras.architecture import variants
from effnetv2_keras.modes import options
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import EVALUATION_OF_WEIGHTS
from tests.images import write_classes
from tests.records import fake_metadata
from tests.tiny import SMALL
from tests.training.test_sources_in_training import long_shard

ROOT = pathlib.Path(__file__).parents[1]
SHORT = (
    "progressive.image_size.start=32,progressive.image_size.end=40,progressive.stages=2,train.epochs=1,"
    "train.batch_size=8,eval.batch_size=8,eval.isize=40,runtime.tensorboard=false,runtime.log_every=1"
)


def run(*arguments, command=(str(ROOT / "main.py"),), fails=False):
    process = subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600, cwd=ROOT,
    )  # fmt: skip
    assert (process.returncode != 0) == fails, process.stderr[-3000:]
    assert "Traceback" not in process.stderr, process.stderr[-3000:]
    assert "Warning" not in process.stderr, process.stderr[-3000:]
    return process.stdout, process.stderr


def run_here(*arguments):
    """Runs a command in this process, which has TensorFlow imported already; returns what it prints."""
    verbosity, output = logging.get_verbosity(), io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(output):
        try:
            cli.main(flags.FLAGS(["main.py", *map(str, arguments)]))
        finally:
            logging.set_verbosity(verbosity)
    return output.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_classes(root, {"red": 9, "blue": 9})
    return root


def test_train_eval_predict_export(images, tmp_path, monkeypatch):
    """All modes except ``plan`` run with the tiny network, with the same flags as main.py."""
    tiny = functools.partial(run, command=("-m", "tests.tiny_main"))
    monkeypatch.setitem(variants.MODELS, "tiny", SMALL)
    model_dir = tmp_path / "run"
    common = ("--dataset_cfg=Folder", f"--data_dir={images}", f"--hparam_str={SHORT}")
    output = run_here("--mode=plan", *common)
    assert "16 images to train on, 2 to evaluate on, 2 classes" in output
    assert "efficientnetv2-nano: 780,674 parameters" in output
    output, log = tiny("--mode=traineval", *common, "--model_name=tiny", f"--model_dir={model_dir}", "--strategy=cpu")
    assert set(re.findall(r"^I(?!0000).*? (\w+\.py):\d+\]", log, re.MULTILINE)) == {
        "parts.py",
        "splits.py",
        "verification.py",
    }  # not TensorFlow's
    assert "stage 1/2 · 32 px · step 1/2" in output
    assert "stage 2/2 · 40 px · step 2/2" in output
    assert "evaluated 2 of 2 images" in output
    assert (model_dir / "training.png").stat().st_size > 10_000
    output = run_here("--mode=eval", f"--model_dir={model_dir}", "--hparam_str=eval.sizes=32|40")
    result = json.loads(output.splitlines()[-1])
    assert (result["step"], result["num_images"]) == (2, 2)
    assert [row["image_size"] for row in result["sizes"]] == [32, 40]
    assert {"eval_sizes.png", "confusion.png", "per_class.csv"} <= {path.name for path in model_dir.iterdir()}
    (model_dir / "report.html").unlink()
    output = run_here("--mode=report", f"--model_dir={model_dir}")
    assert output.strip() == f"Wrote {model_dir / 'report.html'}."
    pictures = (model_dir / "report.html").read_text().count("data:image/jpeg")
    assert pictures >= 4  # two evaluation images with what speaks for the answer, and those that are mistakes again
    output, _ = tiny("--mode=predict", f"--model_dir={model_dir}", "--format=json", images / "red")
    assert len(json.loads(output)) == 9
    run_here("--mode=export", f"--model_dir={model_dir}")
    assert (model_dir / "saved_model" / "saved_model.pb").exists()
    output = run_here("--mode=eval", f"--model_dir={model_dir}/saved_model", *common)
    result = json.loads(output.splitlines()[-1])
    assert (result["num_images"], result["image_size"]) == (2, 40)


@pytest.mark.slow
def test_export_to_int8_and_benchmark(images, tmp_path):
    model_dir, lite, moved = tmp_path / "run", tmp_path / "lite", tmp_path / "moved"
    run("--mode=train", f"--data_dir={images}", f"--hparam_str={SHORT}", f"--model_dir={model_dir}")
    images.rename(moved)
    int8 = ("--mode=export", f"--model_dir={model_dir}", "--format=tflite", "--quantize=int8", "--image_size=48")
    _, problem = run(*int8, fails=True)
    assert "with --data_dir, or use --quantize=dynamic" in problem
    output, _ = run(*int8, f"--data_dir={moved}", f"--export_dir={lite}")
    moved.rename(images)
    assert "of 2 images" in output
    assert "per image of 48 px" in output
    assert (lite / "labels.txt").read_text() == "blue\nred\n"
    output, _ = run("--mode=benchmark", f"--model_dir={model_dir}", "--format=keras,savedmodel", "--batch_sizes=2")
    rows = json.loads(output.splitlines()[-1])["rows"]
    assert [(row["format"], row["batch_size"]) for row in rows] == [("keras", 2), ("savedmodel", 2)]


def test_preview_and_summary(images, tmp_path):
    sheet = tmp_path / "sheet.png"
    run_here("--mode=preview", f"--data_dir={images}", f"--preview_file={sheet}", f"--hparam_str={SHORT}")
    assert sheet.stat().st_size > 10_000
    output = run_here("--mode=summary", "--model_name=efficientnetv2-s")
    assert "21,612,360 parameters (21,458,488 trainable)" in output
    assert "MBConv6, k3x3" in output
    assert "8.366 G multiply-adds" in output
    assert "8.431 G by the reference code's count" in output


def test_plan_of_a_recipe_needs_no_images(tmp_path, caplog):
    fake_metadata(tmp_path, "cifar10", {"train": 50_000, "test": 10_000})
    output = run_here(
        "--mode=plan", "--dataset_cfg=cifar10Ft", "--model_name=efficientnetv2-s", f"--data_dir={tmp_path}"
    )
    assert "50,000 images to train on, 10,000 to evaluate on, 10 classes" in output
    assert "10,000 steps of 512 images" in output
    output = run_here("--mode=plan", "--dataset_cfg=ImageNet", "--model_name=efficientnetv2-s")
    assert "1,281,167 images to train on, 50,000 to evaluate on, 1000 classes" in output
    assert "The data is absent. Planning with the published sizes" in caplog.text


def test_a_wrong_label_far_into_a_shard_gets_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setitem(variants.MODELS, "tiny", SMALL)
    data, path = long_shard(tmp_path / "data", wrong=0)
    message = f"DataError: Record 299 of {path} has the label 0, but with 1000 classes and"
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}"):
        run_here(
            "--mode=train", "--dataset_cfg=imagenet", f"--data_dir={data['data_dir']}", "--strategy=cpu",
            f"--model_dir={tmp_path / 'run'}", "--model_name=tiny",
            f"--hparam_str={SHORT},data.num_classes=1000,data.shuffle_buffer=400,data.augment=none,progressive.stages=1",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=trian"], "Unknown --mode=trian; did you mean 'train'"),
        (["--mode=plan", "--dataset_cfg=foldr"], "Unknown --dataset_cfg=foldr; did you mean 'folder'"),
        (["--mode=plan", "--model_name=efficientnetv2-b4"], "Unknown model 'efficientnetv2-b4'; did you mean"),
        (["--mode=plan", "--hparam_str=train.epoch=1"], "Unknown hparam 'train.epoch'; did you mean 'train.epochs'"),
        (["--mode=plan", "--data_dir=/nowhere"], "--data_dir=/nowhere: there is no such folder"),
        (["--mode=preview", "--dataset_cfg=ImageNet"], "give --data_dir=DIR with the shards DIR/train-00000-of-01024"),
        (["--mode=preview", "--dataset_cfg=carsFt"], "Arrange the images as DIR/train/CLASS/*.jpg (8,144 images)"),
        (["--mode=train", "--dataset_cfg=demo"], "--mode=train needs --model_dir, the folder of the run"),
        (
            ["--mode=eval", "--dataset_cfg=demo"],
            "--mode=eval needs --model_dir, the folder of a run or of a SavedModel",
        ),
        (
            ["--mode=predict", "--format=keras"],
            "--mode=predict does not support --format=keras; use one of table, json, csv, jsonl.",
        ),
        (
            ["--mode=export", "--format=json"],
            "does not support --format=json; use one of savedmodel, keras, tflite, onnx.",
        ),
        (["--mode=benchmark", "--format=tflite,onx"], "Cannot benchmark --format=tflite,onx; use one or more of"),
        (
            ["--mode=plan", "--hparam_str=train.epochs=3", "--hparam_str=train.gclip=-1"],
            "train.gclip='-1': Input should be greater than or equal to 0",
        ),
        (["--mode=summary", "--hparam_str=train.gclip=1"], "so train.gclip would change nothing. Leave it out"),
        (["--mode=scale", "--hparam_str=train.gclip=1"], "--mode=scale reads no settings"),
        (["--mode=report", "--hparam_str=train.gclip=1"], "--mode=report reads no settings"),
        (["--mode=data_service", "--hparam_str=data.augment=none"], "--mode=data_service reads no settings"),
        (["--mode=export", "--hparam_str=eval.isize=64"], "--mode=export reads no settings, so eval.isize would"),
        (["--mode=export", "--quantize=int8", "--hparam_str=data.hflip=0"], "so data.hflip would change nothing"),
        (
            ["--mode=predict", "--hparam_str=train.epochs=3"],
            "--mode=predict reads only data.unreadable, data.exif",
        ),
        (["--mode=benchmark", "--hparam_str=train.epochs=3"], "so train.epochs would change nothing"),
        (["--mode=benchmark", "--model_dir=/nowhere", "--hparam_str=eval.isize=64"], "so eval.isize would change"),
        (["--mode=eval", "--hparam_str=data.hflip=0,train.gclip=1"], "so data.hflip would change nothing"),
        (["--mode=eval", "--model_dir=/nowhere", "--hparam_str=precision.jit_compile=1"], "so precision.jit_compile"),
        (["--mode=benchmark", "--batch_sizes=1,x"], "--batch_sizes=1,x must be whole numbers"),
        (["--mode=eval", "--hparam_str=eval.isize=64,eval.sizes=32"], "so eval.isize would change nothing"),
        (["--mode=export", "--quantize=int8", "--hparam_str=data.verify=0"], "so data.verify would change nothing"),
        (
            ["--mode=benchmark", "--hparam_str=model.include_preprocessing=0"],
            "so model.include_preprocessing would change nothing",
        ),
        (
            ["--mode=benchmark", "--image_size=64", "--hparam_str=eval.isize=32"],
            "--image_size sets the image size, so eval.isize would change nothing",
        ),
        (
            ["--mode=train", "--top_k=2"],
            "--mode=train does not read --top_k, a flag of --mode=predict, so it would change nothing. Leave it out.",
        ),
        (["--mode=predict", "--data_dir=photos"], "--mode=predict does not read --data_dir"),
        (["--mode=predict", "--dataset_cfg=folder"], "--mode=predict does not read --dataset_cfg"),
        (["--mode=eval", "--nouse_ema"], "--mode=eval does not read --use_ema, a flag of --mode=predict, export"),
        (["--mode=report", "--model_name=efficientnetv2-s"], "--mode=report does not read --model_name"),
        (["--mode=summary", "--model_dir=run"], "--mode=summary does not read --model_dir"),
        (["--mode=scale", "--dataset_cfg=demo"], "--mode=scale does not read --dataset_cfg"),
        (["--mode=search", "--tpu=local"], "--mode=search does not read --tpu"),
        (["--mode=plan", "--format=csv"], "--mode=plan does not read --format"),
        (
            ["--mode=export", "--model_dir=run", "--data_dir=photos"],
            "Only --quantize=int8 reads images, so --data_dir would change nothing. Leave it out.",
        ),
        (
            ["--mode=eval", "--model_dir=/nowhere", "--dataset_cfg=demo", "--model_name=efficientnetv2-s"],
            "A run has its own network and settings, so --model_name and --dataset_cfg would change nothing. Leave "
            "them out.",
        ),
        (["--mode=eval", "--dataset_cfg=demo", "--weights=latest"], "so --weights would change nothing"),
        (["--mode=benchmark", "--nouse_ema"], "A network without a run has no checkpoints, so --use_ema would"),
        (["--mode=benchmark", "--model_dir=/nowhere", "--model_name=tiny"], "so --model_name would change nothing"),
    ],
)
def test_mistakes_get_one_clear_message(arguments, message, capfd):
    verbosity = logging.get_verbosity()
    with flagsaver.flagsaver():
        rest = flags.FLAGS(["main.py", *arguments])
        with pytest.raises(SystemExit, match=re.escape(message)):
            cli.main(rest)
    logging.set_verbosity(verbosity)
    assert "Warning" not in capfd.readouterr().err


def test_the_message_of_a_mistake_is_all_that_is_printed():
    output, problem = run("--mode=eval", "--model_dir=/nowhere", fails=True)
    assert output == ""
    assert "/nowhere holds no run" in problem


@pytest.mark.parametrize(
    ("package", "level", "told"),
    [
        ("tensorflow", 20, False),
        ("tensorflow", 30, True),
        ("tensorflow_datasets", 20, True),
        ("effnetv2_keras", 20, True),
    ],
)
def test_what_is_logged(package, level, told):
    file = pathlib.Path(importlib.util.find_spec(package).origin)
    record = standard_logging.LogRecord("absl", level, str(file), 1, "message", None, None)
    assert cli._is_worth_telling(record) == told


def test_importing_the_package_needs_neither_addons_nor_tensorflow():
    code = (
        "import sys, effnetv2_keras\n"
        "from effnetv2_keras import Ramp, MODELS\n"
        "assert 'tensorflow' not in sys.modules\n"
        "from effnetv2_keras import build_model, train\n"
        "assert 'tensorflow' in sys.modules and 'tensorflow_addons' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_lists_every_flag_under_the_modes_that_read_it():
    text = cli.help_text()
    assert all(f"--{name}\n" in text or f"--[no]{name}\n" in text for name in options.flag_table())
    assert text.index("Flags of --mode=predict:") < text.index("--top_k")
    assert "--top_k" in cli.help_text("predict")
    assert "--top_k" not in cli.help_text("train")
    assert max(map(len, text.splitlines())) <= 100
    output, _ = run("--mode=export", "--help")
    assert output.strip() == cli.help_text("export")


def test_a_flag_of_the_reference_code_says_why_there_is_none():
    with pytest.raises(
        SystemExit, match="ConfigError: The reference code's --archive_ckpt is not a flag here: the best"
    ):
        cli._parse(["main.py", "--mode=train", "--archive_ckpt"])


def help_of(*arguments):
    """The text that ``--help`` prints, of this process."""
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as caught:
        cli._parse(["main.py", *arguments, "--help"])
    assert caught.value.code == 0
    return output.getvalue().strip()


def test_help_accepts_the_other_name_of_a_mode():
    assert help_of("--mode=traineval") == help_of("--mode=train") == cli.help_text("train")
    assert "--preview_file" not in help_of("--mode=traineval")
    assert help_of() == cli.help_text()


def test_help_refuses_an_unknown_mode():
    with pytest.raises(SystemExit, match="Unknown --mode=trian; did you mean 'train'"):
        cli._parse(["main.py", "--mode=trian", "--help"])


def test_help_names_the_recipes():
    assert " ".join(hparams.names()) in " ".join(cli.help_text("plan").replace(",", "").split())


def test_every_mode_has_a_module_and_every_flag_names_known_modes():
    assert all(hasattr(importlib.import_module(f"effnetv2_keras.{mode.module}"), "run") for mode in cli.MODES.values())
    named = {mode for _, flag in options.flag_table().values() for mode in flag.modes}
    assert named <= set(cli.MODES)


def test_several_texts_of_settings_are_joined_and_the_last_value_counts():
    given = ("train.epochs=3,data.num_classes=5,train.seed=1", "train.epochs=4,model.num_classes=6", "train.seed=2")
    call = Invocation(options.Options(mode="plan", dataset_cfg="demo", hparam_str=given), None, (), hparams.load)
    config = call.config()
    assert (config.train.epochs, config.train.seed, config.data.num_classes) == (4, 2, 6)


def choices(tmp_path, *given, mode="plan", **flags):
    """The configuration of a call on photographs of 40 x 30 px, and what it prints."""
    write_classes(tmp_path / "photos", {"cat": 30, "dog": 30})
    output = io.StringIO()
    flags = {"data_dir": str(tmp_path / "photos"), **flags}
    call = Invocation(
        options.Options(mode=mode, hparam_str=given, **flags),
        rich.console.Console(file=output, width=400),
        (),
        hparams.load,
    )
    return call.config(), output.getvalue()


def test_the_recipe_says_what_it_chose_for_the_images(tmp_path):
    config, told = choices(tmp_path)
    assert (config.spec.name, config.train.batch_size, config.train.epochs) == ("efficientnetv2-nano", 8, 100)
    assert told.startswith("For 54 training images of about ")
    assert "chooses efficientnetv2-nano, 100 epochs of batches of 8, " in told
    assert "from random weights. --model_name and --hparam_str change it." in told
    config, told = choices(tmp_path, "train.epochs=3", model_name="efficientnetv2-b0")
    assert (config.spec.name, config.train.epochs) == ("efficientnetv2-b0", 3)
    assert "chooses 100 epochs" in told


def test_weights_that_are_named_change_the_recipe(tmp_path):
    config, told = choices(tmp_path, "train.ft_init_ckpt=some_run")
    assert (config.train.ft_init_ckpt, config.train.patience) == ("some_run", 5)
    assert "from the weights some_run" in told
    config, _ = choices(tmp_path, "train.ft_init_ckpt=", dataset_cfg="finetune")
    assert (config.train.ft_init_ckpt, config.train.patience) == (None, None)


def test_modes_without_data_do_not_look_at_it(tmp_path):
    config, told = choices(tmp_path, mode="summary", data_dir=str(tmp_path / "missing"))
    assert (config.spec.name, told) == ("efficientnetv2-b0", "")


def test_a_list_in_place_of_a_folder_is_a_list(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"photos/{n}.jpg,{n % 2}\n" for n in range(50)))
    config, _ = choices(tmp_path, data_dir=str(tmp_path / "list.csv"), mode="export")
    assert config.data.source == "csv"


def test_an_evaluation_of_weights_tells_which_settings_of_training_it_ignores(caplog):
    given = ("train.gclip=2,data.eval_crop=1,train.loss_type=sigmoid",)
    call = Invocation(options.Options(mode="eval", dataset_cfg="demo", hparam_str=given), None, (), hparams.load)
    assert call.config(EVALUATION_OF_WEIGHTS).data.eval_crop == 1
    assert "does not read the settings of training: train.gclip change nothing" in caplog.text


def test_a_path_that_cannot_be_written_is_a_message(monkeypatch, tmp_path):
    def run(_):
        (tmp_path / "no" / "file").write_text("")

    monkeypatch.setattr(importlib.import_module("effnetv2_keras.modes.summary"), "run", run)
    with pytest.raises(SystemExit, match=r"no/file' cannot be read or written: No such file .* Check the path"):
        run_here("--mode=summary")


def test_a_plan_takes_the_command_of_a_training_run_and_says_which_flags_it_does_not_read(images, tmp_path, caplog):
    common = ("--mode=plan", f"--data_dir={images}", f"--model_dir={tmp_path}", f"--hparam_str={SHORT}")
    assert "16 images to train on" in run_here(*common, "--norejoin")
    assert "--mode=plan does not read --model_dir" in caplog.text
    assert "--mode=plan does not read --rejoin" in caplog.text


def test_words_that_are_no_flags_are_not_ignored():
    with pytest.raises(SystemExit, match=r"--mode=summary does not read 'train.seed=2', which is no flag"):
        run_here("--mode=summary", "--hparam_str=train.epochs=1,", "train.seed=2")
