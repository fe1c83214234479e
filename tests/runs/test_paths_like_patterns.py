"""Folders whose names TensorFlow takes for patterns of file names."""

from __future__ import annotations

import io
import os
import pathlib
import tempfile

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.export.saved_model import load_saved_model
from effnetv2_keras.models import build_model
from effnetv2_keras.reporting.progress import Progress
from effnetv2_keras.runs.checkpoint_files import check_integrity
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.state import create_state
from effnetv2_keras.weights import load_weights
from tests.made_runs import CLASS_NAMES, make_run, run_config
from tests.tiny import TINY

NAMES = ["run [v2]", "[x]/a*b?", "back\\slash"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.mark.parametrize("name", [*NAMES[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_run_is_read_whatever_its_folder_is_called(run, tmp_path, name):
    folder = tmp_path / name
    folder.parent.mkdir(exist_ok=True)
    expected = load_trained(run, which="latest").model.get_weights()
    os.rename(run, folder)
    try:
        for which, step in (("latest", 10), ("best", 0)):
            assert load_trained(folder, which=which).step == step
        for place in (folder, folder / "checkpoints" / "ckpt-10"):  # a folder and a prefix as initial weights
            model = build_model(TINY, num_classes=len(CLASS_NAMES))
            assert not load_weights(model, str(place)).missing
        np.testing.assert_array_equal(model.get_weights()[0], expected[0])
        (folder / "checkpoints" / "ckpt-10.data-00000-of-00001").rename(folder / "aside")
        assert str(folder / "checkpoints" / "ckpt-10") in (check_integrity(f"{folder}/checkpoints/ckpt-10") or "")
        (folder / "aside").rename(folder / "checkpoints" / "ckpt-10.data-00000-of-00001")
    finally:
        os.rename(folder, run)


def test_a_run_is_saved_and_resumed_in_a_folder_with_brackets(tmp_path):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    state = create_state(run_config(), strategy, num_classes=3, steps_per_epoch=1.0, total_steps=10)
    folder = RunFolder(tmp_path / "run [v2]")
    for step in (4, 6):
        state.step.assign(step)
        Checkpoints(state, folder, keep=1).save()
        state.step.assign(0)
        assert Checkpoints(state, folder, keep=1).restore_latest() == step
    assert not list(folder.path.rglob("*.damaged"))


def test_a_prefix_may_be_like_a_pattern(tmp_path):
    model = build_model(TINY, num_classes=3)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "my [best] weights"))
    assert not load_weights(build_model(TINY, num_classes=3), str(tmp_path / "my [best] weights")).missing


def test_an_export_is_read_from_a_folder_with_brackets(tmp_path):
    module = tf.Module()
    module.value = tf.Variable(3.0)
    module.call = tf.function(lambda: module.value + 1, input_signature=[])
    tf.saved_model.save(module, str(tmp_path / "export [v2]"))
    assert load_saved_model(tmp_path / "export [v2]").call().numpy() == 4


def test_the_links_are_removed_and_plain_paths_need_none(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "[x]").mkdir()
    with read_literally(tmp_path / "[x]") as path:
        assert pathlib.Path(path).samefile(tmp_path / "[x]")
        assert "[" not in path
    with read_literally("plain/ckpt-1") as path:
        assert path == "plain/ckpt-1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["[x]"]


def test_a_message_shows_the_brackets_of_a_path():
    output = io.StringIO()
    Progress(run_config().plan(10), rich.console.Console(file=output, width=100)).say("Wrote /runs/[v2]/report.html.")
    assert "/runs/[v2]/report.html" in output.getvalue()
