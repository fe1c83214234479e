"""Runs, exports and configurations that an earlier version wrote are read by this one.

The files in ``written_before`` come from version 0.1.0 before its modules were moved into folders, with TensorFlow
2.15.1: a run of two stages that was killed after step 10 of 12, the last row that it would have written, and exports of
its final network.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.modes.predictor import load_predictor
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.loop import train
from tests.training.test_loop import array_splits

BEFORE = pathlib.Path(__file__).parent / "written_before"
IMAGES = np.random.default_rng(0).integers(0, 256, [2, 24, 24, 3]).astype(np.uint8)


def test_a_run_is_resumed(tmp_path):
    shutil.copytree(BEFORE / "run", tmp_path / "run")
    row = train(RunFolder(tmp_path / "run").config(), tmp_path / "run", splits=array_splits())
    expected = json.loads((BEFORE / "last_row.json").read_text())
    assert row.keys() >= expected.keys()
    for name in ("step", "num_images", "eval_loss", "eval_loss_ema", "top1", "top1_ema"):
        assert row[name] == pytest.approx(expected[name], abs=1e-3), name
    logits = load_trained(tmp_path / "run", which="latest").model(IMAGES.astype(np.float32)).numpy()
    np.testing.assert_allclose(logits, np.load(BEFORE / "logits.npy"), atol=1e-3)


def test_a_run_from_before_photographs_were_turned_may_leave_them(tmp_path):
    shutil.copytree(BEFORE / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.claim(folder.config().override({"data.exif_orientation": False}), array_splits())
    assert folder.config().data.exif_orientation is False
    with pytest.raises(RunFolderError, match="exif_orientation was False and is now True"):
        folder.check(folder.config().override({"data.exif_orientation": True}), array_splits())


@pytest.mark.parametrize(("which", "step"), [("best", 6), ("latest", 8)])
def test_a_checkpoint_is_read(which, step):
    trained = load_trained(BEFORE / "run", which=which)
    assert trained.step == step
    assert trained.class_names == ("red", "green", "blue")
    assert np.isfinite(trained.model(IMAGES.astype(np.float32)).numpy()).all()


def test_a_saved_model_is_read():
    loaded = tf.saved_model.load(str(BEFORE / "exports" / "savedmodel"))
    logits = loaded.signatures["uint8"](images=tf.constant(IMAGES))["logits"].numpy()
    np.testing.assert_allclose(logits, np.load(BEFORE / "logits.npy"), atol=1e-4)
    predictor = load_predictor(BEFORE / "exports" / "savedmodel")
    assert predictor.class_names == ("red", "green", "blue")


def test_a_keras_file_is_read():
    model = tf.keras.models.load_model(BEFORE / "exports" / "keras" / "model.keras", compile=False)
    np.testing.assert_allclose(model(IMAGES.astype(np.float32)).numpy(), np.load(BEFORE / "logits.npy"), atol=1e-4)


CONFIGS = json.loads((BEFORE / "configs.json").read_text())


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_is_read(text):
    read, written = (dict(flatten(yaml.safe_load(one))) for one in (Config.from_yaml(text).to_yaml(), text))
    assert written.pop("eval.per_class") is False  # what there is no setting for now
    assert {key: read[key] for key in written} == written
