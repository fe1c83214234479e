"""The ``.keras`` file: a model to go on with."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.export import export_model
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import block_images, rebuilt


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"model__include_preprocessing": False},
        pytest.param({"precision__policy": "mixed_bfloat16"}, marks=pytest.mark.slow),
    ],
)
def test_reloads_as_the_model_that_takes_pixels(trained: Trained, changes: dict[str, object], tmp_path: pathlib.Path):
    report = export_model(rebuilt(trained, **changes), tmp_path / "keras", format_name="keras")
    tolerance = 2e-2 if "precision__policy" in changes else 1e-5
    assert report.comparison.largest_difference <= tolerance
    model = tf.keras.models.load_model(tmp_path / "keras" / "model.keras")
    images = block_images(2)
    expected = trained.model(images, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max(), "the images must matter"
    np.testing.assert_allclose(model(images, training=False), expected, atol=tolerance * np.abs(expected).max())
    assert model.get_layer("stem_conv").dtype_policy.name == changes.get("precision__policy", "float32")
    assert len(model.trainable_variables) == len(trained.model.trainable_variables)
