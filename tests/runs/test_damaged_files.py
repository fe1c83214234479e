"""Small files of a run folder that are gone or damaged, and what the run's checkpoints keep in spite of it."""

from __future__ import annotations

import functools
import json
import re
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.checkpointed import checkpointed
from effnetv2_keras.models.class_names import decode_predictions
from effnetv2_keras.reporting import html_report
from effnetv2_keras.reporting.metrics_log import MetricsLog
from effnetv2_keras.reporting.samples import Samples
from effnetv2_keras.reporting.trackers import _read_ids
from effnetv2_keras.runs import checkpoint_files
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.disk import RunFolderError
from effnetv2_keras.runs.folder_lock import _describe_holder
from effnetv2_keras.runs.provenance import read_provenance
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.runs.usable import read_note
from effnetv2_keras.training.state import create_state
from tests.made_runs import CLASS_NAMES, make_run, run_config
from tests.tiny import TINY

DAMAGES = {
    "empty": b"",
    "truncated": b'{"class_names": ["a", "b',
    "binary": b"\x93NUMPY\x00\xff\xfe{}",
    "list": b"[1, 2]",
    "null": b"null",
    "text": b'"0.5"',
    "not a number": b"NaN",
    "huge": b"9" * 5000,
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "wrong types": b'{"class_names": 3, "metric": [], "value": "high", "model": 5, "pid": {}, "kind": null}',
}
each_damage = pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def splits_of_run():
    source = ArraySource(np.zeros((6, 8, 8, 3), np.uint8), np.arange(6), CLASS_NAMES)
    return Splits(source, source)


@each_damage
@pytest.mark.parametrize("name", ["data.json", "config.yaml"])
def test_a_damaged_description_of_a_run_is_a_message(run, name, content):
    (run / name).write_bytes(content[:1500])
    for use in (lambda: load_trained(run), lambda: RunFolder(run).check(run_config(), splits_of_run())):
        with pytest.raises(RunFolderError, match=rf"{name} cannot be read: (?s:.*)Restore an intact copy"):
            use()


@pytest.mark.parametrize("name", ["data.json", "config.yaml"])
def test_a_missing_description_of_a_run_is_a_message(run, name):
    (run / name).unlink()
    with pytest.raises(RunFolderError, match=f"{name}"):
        load_trained(run)


def test_a_configuration_that_lost_its_end_does_not_get_the_defaults(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text[: text.index("eval:")])
    with pytest.raises(RunFolderError, match="config.yaml cannot be read: .*has no section 'eval'"):
        RunFolder(run).config()


@each_damage
def test_damaged_files_that_a_run_can_do_without_are_warned_of(tmp_path, caplog, content):
    for name in ("best.json", "provenance.json", "trackers.json", ".lock_holder.json"):
        (tmp_path / name).write_bytes(content)
    assert read_note(tmp_path / "best.json") == {}
    assert isinstance(read_provenance(RunFolder(tmp_path)), dict)
    assert not _read_ids(tmp_path / "trackers.json").get("wandb")
    assert _describe_holder(tmp_path)
    assert "best.json cannot be read" in caplog.text


@each_damage
def test_a_damaged_network_or_class_index_is_a_message(tmp_path, content):
    with pytest.raises(UsageError, match="not the JSON of a ModelSpec"):
        ModelSpec.from_json(content.decode(errors="replace"))
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(UsageError):
        decode_predictions(np.zeros((1, 2)), labels=tmp_path / "classes.json")


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 1e308}, {"width": 1e308}, {"head_filters": 10**400}, {"eval_size": 10**30}, {"name": 3},
        {"blocks": 3}, {"blocks": [[1]]}, {"blocks": "many"}, {"width": "wide"}, {"depth": float("nan")},
        {"normalization": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_network_of_absurd_size_is_a_message(change):
    with pytest.raises(UsageError, match="not the JSON of a ModelSpec"):
        ModelSpec.from_json(json.dumps({**json.loads(TINY.to_json()), **change}))


@pytest.mark.parametrize("field", ["repeats", "kernel_size", "expand_ratio", "output_filters"])
def test_a_block_of_absurd_size_is_a_message(field):
    network = json.loads(TINY.to_json())
    network["blocks"][-1][field] = 10**15
    with pytest.raises(UsageError, match="not the JSON of a ModelSpec"):
        ModelSpec.from_json(json.dumps(network))


def row(step, kind="train", **figures):
    return {"kind": kind, "step": step, "epoch": 0.5, "stage": 0, "image_size": 16, "seconds": 1.5, **figures}


@each_damage
def test_a_damaged_line_of_the_metrics_costs_only_itself(tmp_path, caplog, content):
    lines = [json.dumps(row(step, loss=1.0)).encode() for step in (1, 2, 3)]
    before = b"\n".join([lines[0], content, *lines[1:], b'{"kind": "train", "st'])
    (tmp_path / "metrics.jsonl").write_bytes(before)
    log = MetricsLog(RunFolder(tmp_path), step=2, tensorboard=False)
    assert [one["step"] for one in log.rows] == [1, 2]
    assert re.search(r"metrics.jsonl has 1 damaged lines.*: 2\. .* kept as .*metrics.jsonl.damaged", caplog.text)
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    log.add(row(3, loss=2.0))
    assert [one["step"] for one in RunFolder(tmp_path).metrics()] == [1, 2, 3]


def test_a_lost_log_is_warned_of(tmp_path, caplog):
    MetricsLog(RunFolder(tmp_path), step=6, tensorboard=False)
    assert "has no rows of the first 6 steps" in caplog.text


@functools.cache
def _state():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    return create_state(run_config(), strategy, num_classes=6, steps_per_epoch=1.0, total_steps=10)


def state_of(step=0, lr_scale=1.0, rollbacks=0):
    state = _state()
    for name, value in (("step", step), ("lr_scale", lr_scale), ("rollbacks", rollbacks)):
        getattr(state, name).assign(value)
    return state


def test_rollbacks_are_kept_in_the_checkpoint(tmp_path):
    Checkpoints(state_of(4, lr_scale=0.25, rollbacks=2), RunFolder(tmp_path), keep=1).save()
    state = state_of()
    assert Checkpoints(state, RunFolder(tmp_path), keep=1).restore_latest() == 4
    assert (float(state.lr_scale), int(state.rollbacks)) == (0.25, 2)
    state.note_rollbacks(1, 0.5)  # a log that lost a line
    assert (float(state.lr_scale), int(state.rollbacks)) == (0.25, 2)
    state.note_rollbacks(3, 0.125)  # a rollback since the checkpoint
    assert (float(state.lr_scale), int(state.rollbacks)) == (0.125, 3)


def test_a_checkpoint_from_before_rollbacks_were_kept_there_is_restored(tmp_path):
    state = state_of(4)
    (tmp_path / "checkpoints").mkdir()
    models = {"model": state.model, **({"ema_model": state.ema_model} if state.ema_model else {})}
    parts = {name: checkpointed(model) for name, model in models.items()}
    earlier = tf.train.Checkpoint(**parts, optimizer=state.optimizer, step=state.step)
    _ = earlier.save_counter
    earlier.write(str(tmp_path / "checkpoints" / "ckpt-4"))
    state.step.assign(0)
    assert Checkpoints(state, RunFolder(tmp_path), keep=1).restore_latest() == 4
    assert int(state.step.numpy()) == 4


@pytest.mark.parametrize("left", ["metrics.jsonl", "best"])
def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(run, left):
    if left == "metrics.jsonl":
        (run / left).write_text(json.dumps(row(3)) + "\n")
        shutil.rmtree(run / "best")
    shutil.rmtree(run / "checkpoints")
    checkpoints = Checkpoints(state_of(), RunFolder(run), keep=1)
    message = rf"no checkpoint in .*/checkpoints, but {left} of an earlier training. .*mounted"
    for use in (checkpoints.is_new, checkpoints.restore_latest, lambda: load_trained(run, which="latest")):
        with pytest.raises(RunFolderError, match=message):
            use()


def test_the_other_workers_take_the_checkpoint_that_the_first_chose(tmp_path, monkeypatch):
    """The first sees the checkpoint of step 4; the other one also sees a newer one, or does not see that of step 4."""
    monkeypatch.setattr(checkpoint_files, "VISIBLE_WITHIN", 0.1)
    Checkpoints(state_of(4), RunFolder(tmp_path), keep=2).save()
    Checkpoints(state_of(6), RunFolder(tmp_path), keep=2).save()
    state = state_of()

    def worker(step):
        return Checkpoints(state, RunFolder(tmp_path), keep=2, is_chief=False, agree=lambda _: float(step))

    assert worker(4).restore_latest() == 4
    assert worker(-1).restore_latest() == 0
    with pytest.raises(RunFolderError, match=r"ckpt-5, which this worker cannot read after .*shared file system"):
        worker(5).restore_latest()
    with pytest.raises(RunFolderError, match="The first worker cannot resume"):
        worker(-2).restore_latest()


def test_a_checkpoint_of_another_number_of_classes_is_a_message(run):
    data = json.loads((run / "data.json").read_text())
    for names in (data["class_names"][1:], [*data["class_names"], "gnu"]):
        (run / "data.json").write_text(json.dumps({**data, "class_names": names}))
        with pytest.raises(
            RunFolderError, match=rf"ckpt-\d+ does not fit .* with the {len(names)} classes of .*data.json"
        ):
            load_trained(run)


@pytest.mark.parametrize(
    "rows",
    [
        [row(3), row(6, loss=1.0)],
        [row(3, "eval"), row(6, "eval", top1=0.5)],
        [row(3, "eval", top1=0.5, top1_ema=0.4), row(6, "eval", top1=0.5)],
        [row(3, "eval", top1=0.5), row(6, "eval", map=0.5)],
    ],
    ids=["no figures", "no metric", "no average", "another metric"],
)
def test_rows_without_some_figures_do_not_prevent_the_report(run, rows):
    """Other versions, or users, may have written them."""
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**data, "num_train": 50_000}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with mock.patch.object(html_report, "draw_plots", return_value=()):
        page = html_report.write_report(RunFolder(run), Samples((), "")).read_text()
    assert "<h2" in page


def test_a_best_value_that_is_no_number_does_not_stay_the_best(tmp_path):
    (tmp_path / "best.json").write_text('{"metric": "top1", "value": NaN, "step": 3}')
    assert read_note(tmp_path / "best.json") == {}


@pytest.mark.parametrize("images", [3, [], [1, 2], ["e3"], None, {"a": "b"}], ids=str)
def test_damaged_checksums_of_the_images_are_a_message(run, images):
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**data, "images": images}))
    with pytest.raises(RunFolderError, match=r"data.json cannot be read: it lacks two checksums images"):
        RunFolder(run).check(run_config(), splits_of_run())


def test_a_run_without_its_configuration_is_not_called_something_else(run):
    (run / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"If it is a run, restore its config.yaml"):
        RunFolder(run).check(run_config(), splits_of_run())
