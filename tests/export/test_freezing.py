"""Frozen networks: constants instead of variables, in the SavedModel and by itself."""

from __future__ import annotations

import pathlib
import warnings

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.export import ExportError, export_model, freezing
from effnetv2_keras.runs.trained import Trained
from tests.made_runs import random_pixels

PIXELS = np.stack([random_pixels(32, 40, seed=seed) for seed in range(2)]).astype(np.float32)


def of_network(loaded) -> list[tf.Variable]:
    """Returns the variables of a loaded SavedModel that have as many axes as kernels, scales or offsets."""
    return [variable for variable in loaded.signatures["serving_default"].variables if variable.shape.rank]


def test_a_saved_model_has_constants_and_loads_without_a_warning(trained: Trained, tmp_path: pathlib.Path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = export_model(trained, tmp_path / "saved")
        loaded = tf.saved_model.load(str(report.path))
    assert not caplog.records
    assert not of_network(loaded)
    expected = trained.model(PIXELS, training=False).numpy()
    logits = loaded.signatures["serving_default"](images=tf.constant(PIXELS))["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_a_trainable_one_can_be_trained_further(trained: Trained, tmp_path: pathlib.Path):
    report = export_model(trained, tmp_path / "saved", trainable=True)
    loaded = tf.saved_model.load(str(report.path))
    assert len(of_network(loaded)) == len(trained.model.weights)
    kernel = loaded.weights[0]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.serving_default(tf.constant(PIXELS))["logits"] ** 2)
    gradient = tape.gradient(loss, kernel)
    assert float(tf.norm(gradient)) > 0
    kernel.assign_sub(gradient)
    changed = loaded.serving_default(tf.constant(PIXELS))["logits"].numpy()
    assert np.abs(changed - trained.model(PIXELS, training=False)).max() > 1e-4


@pytest.mark.parametrize("name", ["keras", "tflite"])
def test_other_formats_leave_no_choice(name, trained: Trained, tmp_path: pathlib.Path):
    with pytest.raises(ExportError, match="does not support --trainable. --format=savedmodel does"):
        export_model(trained, tmp_path / "export", format_name=name, trainable=True)
    assert not (tmp_path / "export").exists()


def test_a_network_too_large_for_a_graph_keeps_its_variables(trained: Trained, tmp_path: pathlib.Path, monkeypatch):
    monkeypatch.setattr(freezing, "LARGEST", 4 * trained.model.count_params() - 1)
    report = export_model(trained, tmp_path / "saved")
    assert len(of_network(tf.saved_model.load(str(report.path)))) == len(trained.model.weights)
