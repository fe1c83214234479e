"""Searches as a user runs them: each trial is a real training in a separate process."""

import contextlib
import csv
import io
import json
import pathlib
import signal
import subprocess
import sys
import time

import optuna
import psutil
import pytest
import rich.console

from effnetv2_keras.architecture import variants
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.runs.disk import RunFolderError
from effnetv2_keras.search import study as study_lib
from effnetv2_keras.search.display import Display
from effnetv2_keras.search.reward import Budget
from effnetv2_keras.search.runner import TrialFailed, TrialRunner, short_training
from effnetv2_keras.search.search import search
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.study import Outcome, Study
from hparams import load
from tests.images import write_classes
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "tiny.json"
    path.write_text(TINY.to_json())
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_classes(root / "train", {"red": 12, "green": 12, "blue": 12})
    write_classes(root / "val", {"red": 5, "green": 4, "blue": 4}, seed=1)
    return root


def settings(images, **changes):
    return {
        "data.data_dir": str(images),
        "data.augment": "none",
        "progressive.image_size.start": 32,
        "progressive.image_size.end": 40,
        "train.batch_size": 12,
        "train.lr_base": 0.01,
        "eval.batch_size": 8,
        "search.trials": 2,
        "search.epochs": 2,
        "search.timing_steps": 2,
        "search.layers": "0",
        **changes,
    }


def config_for(backbone, images, **changes):
    return load("folder", str(backbone)).override(settings(images, **changes))


QUIET = rich.console.Console(quiet=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory, backbone, images):
    """A search of two trials, one of which failed, and its output."""
    folder = tmp_path_factory.mktemp("search") / "search"
    config = config_for(backbone, images)
    first = _first_network(config, folder)
    with _obstacle(folder, first), (folder.parent / "printed").open("w") as file:
        search(config, str(folder), strategy="cpu", console=rich.console.Console(file=file, width=160))
    return folder, config, first, (folder.parent / "printed").read_text()


def _first_network(config, folder):
    space = SearchSpace(config.spec, config.search)
    budget = Budget(space, config.search, image_size=32, num_classes=3)
    return Study(space, budget, config.search, storage=optuna.storages.InMemoryStorage()).next().spec.name


@contextlib.contextmanager
def _obstacle(folder, network):
    """Makes the trial of a network fail by removing its configuration as soon as it is written."""
    original = TrialRunner._start

    def start(self):
        (folder / "trials" / network / "trial.yaml").unlink(missing_ok=True)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialRunner, "_start", start)
        yield


def rows_of(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_failed_trial_is_recorded_and_the_search_continues(done):
    folder, _, first, printed = done
    failed, complete = rows_of(folder)
    assert failed["network"] == first
    assert failed["ending"].startswith("failed: FileNotFoundError")
    assert "exit status 1; see" in failed["ending"]
    assert float(complete["accuracy"]) > 0
    assert float(complete["step time"]) > 0
    assert f"{complete['accuracy']}" in printed
    assert "1 of 2 trials have a result." in printed


def test_the_result_files_can_be_read_and_trained(done):
    folder, config, _, _ = done
    (complete,) = [row for row in rows_of(folder) if not row["ending"]]
    best = variants.get_spec(str(folder / "best.json"))
    assert best.name == complete["network"]
    assert [path.stem for path in (folder / "front").iterdir()] == [best.name]
    assert config.override({"model.model_name": str(folder / "best.json")}).spec == best
    page = (folder / "search.html").read_text()
    for text in (
        best.name,
        "Fused-MBConv",
        "accuracy against step time",
        "Trials without a result",
        "FileNotFoundError",
    ):
        assert text in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")


def test_a_trial_trains_at_one_small_size_as_the_training_loop_does(done):
    folder, config, _, _ = done
    (complete,) = [row for row in rows_of(folder) if not row["ending"]]
    trial = folder / "trials" / complete["network"]
    rows = [json.loads(line) for line in (trial / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {0}
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["epoch"] for row in evaluations] == [1, 2]
    assert float(complete["accuracy"]) == pytest.approx(evaluations[-1]["top1_ema"], abs=1e-4)
    assert not (trial / "run" / "checkpoints").exists()
    short = short_training(config)
    assert (short.progressive.image_size.start, short.progressive.image_size.end, short.eval.isize) == (32, 32, 32)
    assert short.progressive.dropout_rate.end == config.progressive.dropout_rate.start
    assert short.train.lr_warmup_epoch == pytest.approx(0.4)


def test_a_finished_search_trains_nothing_again(done, monkeypatch):
    folder, config, _, _ = done
    before = (folder / "trials.csv").read_text()
    monkeypatch.setattr(TrialRunner, "_start", lambda self: pytest.fail("a trial was started"))
    search(config, str(folder), strategy="cpu", console=QUIET)
    assert (folder / "trials.csv").read_text() == before


def test_another_search_is_refused(done, backbone, images):
    folder, _, _, _ = done
    same_images = f"{images}/./"  # another spelling of the path is no difference
    with pytest.raises(RunFolderError, match=r"another search: search.kernels was \(3, 5\) and is now \(3,\)\. Use"):
        search(config_for(backbone, same_images, **{"search.kernels": "3"}), str(folder), console=QUIET)


def test_a_folder_of_something_else_is_refused(tmp_path, backbone, images):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RunFolderError, match=r"has no search.yaml, so it is not a search"):
        search(config_for(backbone, images), str(tmp_path), console=QUIET)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"search.max_parameters": 1e-5}, UsageError, "the smallest network of this space"),
        ({"search.storage": "sqlite:////nowhere/at/all.db"}, UsageError, "cannot be opened"),
        ({"data.data_dir": "/nowhere"}, UsageError, "/nowhere"),
    ],
)
def test_an_impossible_search_leaves_no_folder(tmp_path, backbone, images, changes, error, message):
    with pytest.raises(error, match=message):
        search(config_for(backbone, images, **changes), str(tmp_path / "new"), console=QUIET)
    assert not (tmp_path / "new").exists()


def test_a_search_whose_trials_all_fail_ends(tmp_path, backbone, images, monkeypatch):
    def fail(self, spec, on_epoch, on_wait):
        raise TrialFailed("no room on the device")

    monkeypatch.setattr(TrialRunner, "run", fail)
    config = config_for(backbone, images, **{"search.trials": 20})
    with pytest.raises(UsageError, match="5 trials in a row failed"):
        search(config, str(tmp_path / "search"), console=QUIET)
    assert [row["ending"] for row in rows_of(tmp_path / "search")] == ["failed: no room on the device"] * 5
    with pytest.raises(UsageError, match="5 trials in a row failed"):
        search(config, str(tmp_path / "search"), console=QUIET)
    assert len(rows_of(tmp_path / "search")) == 10


def test_limits_that_exclude_almost_all_networks_are_reported(tmp_path, images, monkeypatch):
    monkeypatch.setattr(study_lib, "_MOST_DRAWS", 10)
    config = load("folder", "efficientnetv2-b0").override(settings(images, **{"search.max_parameters": 0.85}))
    with pytest.raises(UsageError, match="No network within the limits was found"):
        search(config, str(tmp_path / "search"), console=QUIET)


@pytest.mark.parametrize(("stopped", "told"), [(False, True), (True, False)])
def test_an_interrupted_search_does_not_claim_that_networks_ran_out(stopped, told):
    settings = SearchConfig(trials=5)
    space = SearchSpace(TINY, settings)
    budget = Budget(space, settings, image_size=32, num_classes=3)
    study = Study(space, budget, settings, storage=optuna.storages.InMemoryStorage())
    study.complete(study.next(), Outcome(0.5, 1.0))
    printed = io.StringIO()
    Display(study, settings, rich.console.Console(file=printed, width=160)).conclude([], stopped=stopped)
    assert "1 of 1 trials have a result." in printed.getvalue()
    assert ("the sampler found no new network within the limits" in printed.getvalue()) == told


def test_no_password_is_written(tmp_path, backbone, images, monkeypatch):
    monkeypatch.setattr(TrialRunner, "run", lambda self, spec, on_epoch, on_wait: Outcome(0.5, 1.0))
    config = config_for(backbone, images, **{"search.storage": f"sqlite:///{tmp_path}/secret.db"})
    search(config, str(tmp_path / "search"), console=QUIET)
    for path in (tmp_path / "search").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    assert short_training(config).search.storage is None


@pytest.mark.slow
def test_searches_with_other_settings_share_a_database_without_meeting(tmp_path, backbone, images, monkeypatch):
    monkeypatch.setattr(TrialRunner, "run", lambda self, spec, on_epoch, on_wait: Outcome(0.5, 1.0))
    url = f"sqlite:///{tmp_path}/search.db"
    for name, kernels in (("one", "3"), ("two", "3|5"), ("three", "3")):
        config = config_for(backbone, images, **{"search.storage": url, "search.kernels": kernels})
        study = search(config, str(tmp_path / name), console=QUIET)
        assert len(study.trials()) == 2
    names = [{row["network"] for row in rows_of(tmp_path / name)} for name in ("one", "two", "three")]
    assert names[0] == names[2] != names[1]


@pytest.mark.slow
def test_a_network_that_is_too_slow_is_not_trained(tmp_path, backbone, images):
    config = config_for(backbone, images, **{"search.trials": 1, "search.max_step_time": 1e-3})
    search(config, str(tmp_path / "search"), strategy="cpu", console=QUIET)
    (row,) = rows_of(tmp_path / "search")
    assert row["ending"].startswith("stopped: a step takes")
    assert row["accuracy"] == "-"
    assert float(row["step time"]) > 1e-3
    assert not (tmp_path / "search" / "trials" / row["network"] / "run").exists()


def test_a_scale_that_is_no_search_is_named(backbone, images):
    with pytest.raises(ConfigError, match="did you mean 'search.trials'"):
        config_for(backbone, images, **{"search.trails": 3})


def start(folder, backbone, images, *flags, **changes):
    text = ",".join(f"{key}={value}" for key, value in settings(images, **changes).items())
    return subprocess.Popen(
        [sys.executable, "main.py", "--mode=search", "--dataset_cfg=folder", f"--model_name={backbone}",
         f"--model_dir={folder}", "--strategy=cpu", f"--hparam_str={text}", *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    pytest.fail("nothing happened")


def results(folder):
    return set(folder.glob("trials/*/result.json"))


def trial_process(process):
    return [child for child in psutil.Process(process.pid).children() if "search.trial" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_kills_cost_a_trial_at_most_and_processes_share_the_rest(tmp_path, backbone, images):
    folder, changes = tmp_path / "search", {"search.trials": 6, "search.epochs": 6}
    process = start(folder, backbone, images, **changes)
    (child,) = wait_for(lambda: trial_process(process), process)
    wait_for(lambda: list(folder.glob("trials/*/step_time.json")), process)
    child.kill()  # as if memory ran out
    wait_for(lambda: len(results(folder)) == 1, process)
    wait_for(lambda: len(list(folder.glob("trials/*/run/metrics.jsonl"))) > 1 + (len(results(folder)) > 1), process)
    before = {path: path.stat().st_mtime_ns for path in results(folder)}
    (child,) = trial_process(process)
    process.kill()
    process.communicate()
    child.wait(60)  # it saves and ends by itself

    both = [start(folder, backbone, images, **changes) for _ in range(2)]
    printed = [one.communicate(timeout=400)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], printed
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was trained twice
    rows = rows_of(folder)
    assert len(rows) == 6
    assert sorted(row["ending"] != "" for row in rows) == [False] * 5 + [True]
    (failed,) = [row["ending"] for row in rows if row["ending"]]
    assert failed.startswith("failed: killed by SIGKILL, perhaps because memory ran out")
    assert any("was interrupted; its network is queued again" in text for text in printed)
    processes = {row["process"].rsplit(":", 1)[1] for row in rows}
    assert {str(one.pid) for one in both} <= processes
    # The process that ended last shows the trials of all processes.
    assert any(all(row["network"] in text and row["process"] in text for row in rows) for text in printed)


@pytest.mark.slow
def test_ctrl_c_saves_the_trial_at_hand(tmp_path, backbone, images):
    folder, changes = tmp_path / "search", {"search.trials": 1, "search.epochs": 40}
    process = start(folder, backbone, images, **changes)
    wait_for(lambda: any(path.stat().st_size for path in folder.glob("trials/*/run/metrics.jsonl")), process)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 75, printed
    assert "the sampler found no new network within the limits" not in printed
    (trial,) = folder.glob("trials/*/run")
    steps = json.loads((trial / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert list((trial / "checkpoints").iterdir())
    process = start(folder, backbone, images, **changes)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    rows = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row["step"] for row in rows if row["kind"] == "eval"]
    assert len(evaluated) == len(set(evaluated)) == 40
    assert 0 < steps < evaluated[-1]


def test_failed_trials_have_readable_reasons(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("Traceback\n  line\nValueError: no\n\n")
    with pytest.raises(TrialFailed, match=r"^ValueError: no \(exit status 1; see .*log.txt\)$"):
        TrialRunner._explain(1, log)
    with pytest.raises(TrialFailed, match="killed by SIGABRT; see"):
        TrialRunner._explain(-6, log)
    with pytest.raises(UsageError, match="ValueError: no"):
        TrialRunner._explain(2, log)
