"""Checkpoints with damaged files, leftovers, full disks and other networks."""

import collections
import json
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.runs import checkpoint_files
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.disk import NoRoomError
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.state import create_state
from tests.made_runs import make_run
from tests.short_runs import tiny_config
from tests.tiny import TINY

DATA = ".data-00000-of-00001"


def make_state(num_classes=3, **changes):
    config, strategy = tiny_config().override(changes), make_strategy("cpu")
    return create_state(config.with_network(TINY), strategy, num_classes=num_classes, steps_per_epoch=3, total_steps=12)


@pytest.fixture(scope="module")
def state():
    return make_state()


def advance(state, step):
    """Sets the step, and the weights to values that differ between steps."""
    state.step.assign(step)
    for variable in state.model.trainable_variables:
        variable.assign(tf.fill(variable.shape, float(step)))


@pytest.fixture
def saved(state, tmp_path):
    """A folder with the checkpoints of steps 4, 6, 8 and 10, whose best is that of 6."""
    checkpoints = Checkpoints(state, RunFolder(tmp_path), keep=9)
    for step in (4, 6, 8, 10):
        advance(state, step)
        checkpoints.save_if_best(-abs(step - 6), "top1")
        checkpoints.save()
    return tmp_path / "checkpoints"


def truncate(path):
    os.truncate(path, path.stat().st_size - 100)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def remove(path):
    path.unlink()


DAMAGES = [(action, suffix) for action in (truncate, empty, flip, remove) for suffix in (".index", DATA)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [*DAMAGES[::3], *(pytest.param(*each, marks=pytest.mark.slow) for each in DAMAGES if each not in DAMAGES[::3])],
)
def test_the_newest_intact_checkpoint_is_restored(saved, state, caplog, damage, suffix):
    damage(saved / f"ckpt-10{suffix}")
    damage(saved / f"ckpt-8{suffix}")
    before = {path.name: path.stat().st_size for path in saved.iterdir()}
    checkpoints = Checkpoints(state, RunFolder(saved.parent), keep=9)
    assert checkpoints.restore_latest() == 6
    assert np.all(state.model.trainable_variables[0].numpy() == 6.0)
    assert re.search(rf"damaged: {saved}/ckpt-10: .*; {saved}/ckpt-8: .*. Using {saved}/ckpt-6 instead", caplog.text)
    assert checkpoints.latest == tf.train.latest_checkpoint(str(saved)) == str(saved / "ckpt-6")
    aside = {name + (".damaged" if re.match("ckpt-(8|10)", name) else ""): size for name, size in before.items()}
    aside["checkpoint"] = (saved / "checkpoint").stat().st_size
    assert {path.name: path.stat().st_size for path in saved.iterdir()} == aside
    advance(state, 8)
    assert checkpoints.save() == str(saved / "ckpt-8")
    flip(saved / f"ckpt-8{DATA}")
    assert Checkpoints(state, RunFolder(saved.parent), keep=9).restore_latest() == 6
    assert (saved / f"ckpt-8{DATA}.damaged1").exists() or (suffix == DATA and damage is remove)


def garble(path):
    path.write_bytes(b"\xff\x00 no protocol buffer")


@pytest.mark.parametrize("damage", [garble, empty, remove])
def test_the_file_that_names_the_newest_does_not_matter(saved, state, damage):
    damage(saved / "checkpoint")
    assert Checkpoints(state, RunFolder(saved.parent), keep=9).restore_latest() == 10
    assert tf.train.latest_checkpoint(str(saved)) == str(saved / "ckpt-10")
    assert tf.train.load_checkpoint(str(saved)).get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") == 10


@pytest.mark.parametrize(("damage", "suffix"), [(truncate, DATA), (remove, DATA), (remove, ".index")])
def test_a_run_does_not_begin_again_over_damaged_checkpoints(saved, state, damage, suffix):
    for step in (4, 6, 8, 10):
        damage(saved / f"ckpt-{step}{suffix}")
    before = names(saved)
    checkpoints = Checkpoints(state, RunFolder(saved.parent), keep=9)
    assert checkpoints.latest == str(saved / "ckpt-10")
    with pytest.raises(RunFolderError, match="No checkpoint of .* can be read: .*ckpt-10: .*ckpt-4: .*Restore an"):
        checkpoints.restore_latest()
    assert names(saved) == before


def test_an_intact_checkpoint_of_another_network_is_refused(saved):
    before = names(saved)
    with pytest.raises(RunFolderError, match="ckpt-10 does not match this run"):
        Checkpoints(make_state(num_classes=4), RunFolder(saved.parent), keep=9).restore_latest()
    assert names(saved) == before


def test_a_checkpoint_without_read_permission_is_not_treated_as_damaged(saved, state, monkeypatch):
    def refuse(_):
        raise tf.errors.OpError(None, None, "ckpt-10.data; Permission denied", 7)

    before = names(saved)
    monkeypatch.setattr(checkpoint_files.tf.train, "load_checkpoint", refuse)
    with pytest.raises(RunFolderError, match="ckpt-10 cannot be read: .*Permission denied. Give this user read"):
        Checkpoints(state, RunFolder(saved.parent), keep=9).restore_latest()
    assert names(saved) == before


def test_leftovers_of_a_killed_write_are_removed(saved, state):
    before = names(saved)
    (saved / ".writing-12").mkdir()
    (saved / ".writing-12" / "ckpt-12.index").write_text("")
    (saved / f"ckpt-12{DATA}").write_text("")
    (saved / ".checkpoint.123.partial").write_text("")
    checkpoints = Checkpoints(state, RunFolder(saved.parent), keep=9)
    assert checkpoints.latest == str(saved / "ckpt-10")
    assert checkpoints.restore_latest() == 10
    assert names(saved) == before


def test_older_checkpoints_are_kept_until_a_write_is_complete(saved, state, monkeypatch):
    """The rename of each file in turn fails."""
    checkpoints = Checkpoints(state, RunFolder(saved.parent), keep=1)
    advance(state, 12)
    before = names(saved)
    replace = os.replace
    for suffix in (DATA, ".index"):

        def refuse(source, target, suffix=suffix):
            if str(target).endswith(suffix):
                raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(
            NoRoomError, match=r"0\.2 MB are needed .* free. The run is saved at step 10. Free disk space"
        ):
            checkpoints.save()
        assert names(saved) == before
    monkeypatch.setattr(os, "replace", replace)
    checkpoints.save()
    assert names(saved) == ["checkpoint", f"ckpt-12{DATA}", "ckpt-12.index"]


def test_a_prune_killed_in_the_middle_leaves_no_index_without_data(saved, monkeypatch):
    """TensorFlow takes a checkpoint for complete if its index is there."""
    unlink = pathlib.Path.unlink

    def unlink_then_die(path):
        unlink(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "unlink", unlink_then_die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_files.CheckpointFiles(saved, keep=3).prune()
    monkeypatch.undo()
    assert f"ckpt-4{DATA}" in names(saved)
    assert "ckpt-4.index" not in names(saved)
    checkpoint_files.CheckpointFiles(saved, keep=3).prune()
    assert not [name for name in names(saved) if name.startswith("ckpt-4")]


def test_the_best_checkpoint_is_kept_by_its_metric(tmp_path, state):
    checkpoints = Checkpoints(state, RunFolder(tmp_path), keep=2)
    for step, value, better in [(1, 0.5, True), (2, 0.4, False), (3, 0.5, False), (4, 0.6, True), (5, 0.1, False)]:
        state.step.assign(step)
        assert checkpoints.save_if_best(value, "top1_ema") == better
        checkpoints.save()
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {"metric": "top1_ema", "value": 0.6, "step": 4}
    assert tf.train.latest_checkpoint(str(tmp_path / "best")).endswith("-4")
    assert [path.name for path in (tmp_path / "best").glob("*.index")] == ["ckpt-4.index"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index")) == ["ckpt-4.index", "ckpt-5.index"]
    resumed = Checkpoints(state, RunFolder(tmp_path), keep=2)
    resumed.restore_latest()
    assert not resumed.save_if_best(0.6, "top1_ema")
    assert resumed.save_if_best(0.2, "map_ema")  # the first by another metric
    assert not resumed.save_if_best(0.1, "map_ema")


def test_the_smallest_value_can_be_the_best_and_nan_never_is(tmp_path, state):
    checkpoints = Checkpoints(state, RunFolder(tmp_path), keep=2)
    for step, value, better in [(1, float("nan"), False), (2, 0.4, True), (3, 0.5, False), (4, 0.1, True)]:
        state.step.assign(step)
        assert checkpoints.save_if_best(value, "ece", smaller_is_better=True) == better
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {"metric": "ece", "value": 0.1, "step": 4}


@pytest.mark.parametrize(
    ("damage", "name"), [(truncate, f"ckpt-6{DATA}"), (remove, "ckpt-6.index"), (garble, "best.json")]
)
def test_the_next_evaluation_replaces_a_damaged_best(saved, state, caplog, damage, name):
    damage(saved.parent / "best" / name)
    checkpoints = Checkpoints(state, RunFolder(saved.parent), keep=9)
    checkpoints.restore_latest()
    assert "the next evaluation" in caplog.text
    assert any(kept.endswith(".damaged") for kept in names(saved.parent / "best")) == (damage is not garble)
    advance(state, 12)
    assert checkpoints.save_if_best(-6, "top1")
    assert tf.train.latest_checkpoint(str(saved.parent / "best")).endswith("ckpt-12")


def test_other_workers_decide_like_the_chief_and_write_nothing(tmp_path, state, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    writes = collections.Counter()
    write = tf.train.Checkpoint.write
    count = lambda self, path: (writes.update([path.startswith(str(tmp_path / "scratch"))]), write(self, path))  # noqa: E731
    monkeypatch.setattr(tf.train.Checkpoint, "write", count)
    workers = [Checkpoints(state, RunFolder(tmp_path / "run"), keep=2, is_chief=number == 0) for number in (0, 1)]
    for step, value in [(1, 0.5), (2, 0.4), (3, 0.6), (3, 0.6)]:
        state.step.assign(step)
        decisions = {worker.save_if_best(value, "top1") for worker in workers}
        assert len(decisions) == 1
        assert len({worker.save() for worker in workers}) == 1
    assert writes == {False: 5, True: 5}
    assert not names(tmp_path / "scratch")
    before = names(tmp_path / "run" / "checkpoints")
    flip(tmp_path / "run" / "checkpoints" / f"ckpt-3{DATA}")
    assert (
        Checkpoints(state, RunFolder(tmp_path / "run"), keep=2, is_chief=False, agree=lambda _: 2.0).restore_latest()
        == 2
    )
    assert names(tmp_path / "run" / "checkpoints") == before


def test_space_for_all_checkpoints_is_checked_beforehand(saved, state, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    new, old = (Checkpoints(state, RunFolder(path), keep=5) for path in (saved.parent / "new", saved.parent))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_500_000))
    new.check_room()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_300_000))
    message = r"5 recent ones and the best one: 1\.3 MB are needed \(0\.2 MB each\) and 1\.3 MB are free. There is no"
    with pytest.raises(NoRoomError, match=message):
        new.check_room()
    old.check_room()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100_000))
    with pytest.raises(NoRoomError, match=r"0\.2 MB are needed .* step 10. Free disk space, lower runtime"):
        old.check_room()
    assert not (saved.parent / "new").exists()


def test_load_trained_takes_raw_or_averaged_weights(tmp_path):
    folder = make_run(tmp_path / "run")
    raw, average = (load_trained(folder, use_ema=use) for use in (False, True))
    assert raw.class_names == average.class_names
    differing = [
        not np.array_equal(one.numpy(), two.numpy()) for one, two in zip(raw.model.weights, average.model.weights)
    ]
    assert sum(differing) > len(differing) / 2
