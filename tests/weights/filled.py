"""Models with weights that all affect the output, and functions that compare models."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from effnetv2_keras.models import build_model
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.weights.assign import weight_names
from tests.models.filling import fill_at_random
from tests.tiny import TINY


def tiny(seed=None, **settings):
    """Returns the tiny network with 5 classes, with random weights if there is a seed."""
    model = build_model(TINY, **{"num_classes": 5, **settings})
    if seed is not None:
        fill_at_random(model, seed)
    return model


def named_weights(model):
    """Returns a copy of all weights, by canonical name."""
    return {name: value.copy() for name, value in zip(weight_names(model), model.get_weights())}


def assert_same_weights(model, other):
    """Asserts that ``model`` and ``other`` have the same weights."""
    ours, theirs = named_weights(model), named_weights(other)
    assert sorted(ours) == sorted(theirs)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def assert_close(ours, theirs):
    """Asserts that two outputs differ by at most about 1e-4 of the largest value, and are not constant."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.std(theirs) > 1e-4 * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def pixels(height, width, channels=3):
    """Returns two images of integers in 0..255, float32 ``[2, height, width, channels]``."""
    numbers = np.random.default_rng(height).integers(0, 256, [2, height, width, channels])
    return tf.constant(numbers, tf.float32)


def write_h5(model, path):
    """Writes an ``.h5`` file that groups weights by layer name; Keras 3 only writes such files with the model."""
    (model.save if IS_KERAS_3 else model.save_weights)(path)
