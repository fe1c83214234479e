import json
import sys

import numpy as np
import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.reporting import trackers
from effnetv2_keras.reporting.trackers import TRACKERS, Tracker, Trackers, check_libraries
from effnetv2_keras.runs.run_folder import RunFolder
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.training.test_loop import array_splits

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

ROWS = [
    {"kind": "train", "step": 3, "stage": 0, "loss": 1.5},
    {"kind": "eval", "step": 6, "stage": 0, "top1": 0.25},
    {"kind": "train", "step": 9, "stage": 1, "loss": 0.5},
]


def follow(name, folder, rows, **changes):
    config = Config().override({"runtime.trackers": name, **changes})
    folder.path.mkdir(exist_ok=True)
    with Trackers(config.runtime.trackers, folder, config) as followers:
        for row in rows:
            followers.log(row)


def test_a_resumed_run_keeps_its_id_in_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install -r requirements-mlflow.txt")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "tracking").as_uri())
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    client = mlflow.MlflowClient()
    run_id = json.loads((folder / "trackers.json").read_text())["mlflow"]
    assert client.get_run(run_id).info.status == "KILLED"
    follow("mlflow", folder, ROWS[1:], **{"runtime.log_every": 7})  # runtime may change
    run = client.get_run(run_id)
    assert len(client.search_runs(["0"])) == 1
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert (run.data.params["train.epochs"], run.data.metrics["eval/top1"]) == ("350.0", 0.25)
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(3, 1.5), (9, 0.5)]


def interrupted(folder):
    def rows():
        yield ROWS[0]
        raise KeyboardInterrupt

    follow("mlflow", folder, rows())


def test_a_resumed_run_keeps_its_id_in_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="pip install -r requirements-wandb.txt")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = RunFolder(tmp_path)
    (folder / "trackers.json").write_text('{"wandb": "known123"}')
    follow("wandb", folder, ROWS)
    assert json.loads((folder / "trackers.json").read_text()) == {"wandb": "known123"}
    wandb.teardown()  # ends its process, which writes the end of the files
    (path,) = (folder / "wandb").glob("offline-run-*-known123/run-known123.wandb")
    written = path.read_bytes()
    assert not [word for word in (b"train/loss", b"eval/top1", b"train.epochs") if word not in written]


def test_training_sends_every_row_to_its_trackers(tmp_path, monkeypatch):
    told = []

    class Notebook(trackers.Tracker):
        def __init__(self, library, folder, config, run_id):
            self.run_id = run_id or "1"

        def log(self, row):
            told.append(row)

        def finish(self, *, completed):
            told.append(completed)

    monkeypatch.setitem(TRACKERS, "mlflow", Notebook)
    monkeypatch.setitem(sys.modules, "mlflow", json)
    source = ArraySource(np.zeros((8, 16, 16, 3), np.uint8), np.arange(8) % 2, ("even", "odd"))
    config = tiny_config(f"{ONE_STAGE},train.epochs=2,runtime.trackers=mlflow")
    train_tiny(config, tmp_path / "run", splits=Splits(source, source))
    assert told == [*RunFolder(tmp_path / "run").metrics(), True]
    assert [row["kind"] for row in told[:-1]] == ["train", "eval"]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_named_with_the_command(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"names {name}, whose library .* `pip install .*\[{name}\]\"`"):
        check_libraries([name])


def test_only_known_trackers_are_accepted():
    chosen = Config().override(parse_overrides("runtime.trackers=wandb|mlflow")).runtime.trackers
    assert set(chosen) == set(TRACKERS)
    assert Config.from_yaml(Config().override({"runtime.trackers": "mlflow"}).to_yaml()).runtime.trackers == ("mlflow",)
    with pytest.raises(ConfigError, match="runtime.trackers.0='tensorbored'.*'wandb' or 'mlflow'"):
        Config().override({"runtime.trackers": "tensorbored"})


def test_a_failing_tracker_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    told = []

    class Failing(Tracker):
        run_id = "1"

        def __init__(self, *_):
            pass

        def log(self, row):
            told.append(row)
            raise ConnectionError("no route to host")

        def finish(self, *, completed):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": Failing})
    monkeypatch.setattr(trackers, "_libraries", lambda names: dict.fromkeys(names))
    result = train_tiny(tiny_config(f"{ONE_STAGE},runtime.trackers=wandb"), tmp_path / "run", splits=array_splits())
    assert result["step"] == 12
    assert len(told) == 1
    assert "The tracker Failing failed and gets no more metrics: no route to host" in caplog.text
