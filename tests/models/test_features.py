"""The features before the classifier."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.models.features import with_features
from effnetv2_keras.models.from_config import build_for
from tests.models.filling import fill_at_random
from tests.tiny import SMALL

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def check(model, width):
    """The classifier makes the logits of the features."""
    features, logits = with_features(model)(IMAGES, training=False)
    np.testing.assert_array_equal(logits, model(IMAGES, training=False))
    assert (features.shape, features.dtype) == ((2, width), tf.float32)
    kernel, bias = model.get_weights()[-2:]
    np.testing.assert_allclose(features.numpy() @ np.reshape(kernel, [width, -1]) + bias, logits, rtol=1e-3, atol=1e-4)


def test_of_a_network_of_this_package():
    model = build_model(SMALL, num_classes=3)
    fill_at_random(model)
    check(model, 32)


@pytest.mark.parametrize(("name", "width"), [("tiny", 16), ("bare", 8)])
def test_of_a_network_of_keras_with_and_without_preprocessing_before_it(name, width):
    settings = {"model.model_name": f"keras:tests.own_networks:{name}", "progressive.image_size.start": 32}
    check(build_for(Config().override({**settings, "progressive.image_size.end": 32, "eval.isize": 32}), 3), width)


def test_of_a_classifier_that_is_a_convolution():
    images = tf.keras.Input((None, None, 3))
    x = tf.keras.layers.GlobalAveragePooling2D(keepdims=True)(tf.keras.layers.Conv2D(7, 3)(images))
    logits = tf.keras.layers.Flatten()(tf.keras.layers.Conv2D(3, 1)(x))
    check(tf.keras.Model(images, tf.keras.layers.Activation("linear")(logits)), 7)


def test_a_classifier_of_two_inputs_has_none():
    images = tf.keras.Input((4, 4, 3))
    x = tf.keras.layers.GlobalAveragePooling2D()(images)
    with pytest.raises(UsageError, match=r"has no features to write: its classifier 'both' does not have one input"):
        with_features(tf.keras.Model(images, _Both(name="both")([x, x])))


class _Both(tf.keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=())

    def call(self, inputs):
        return (inputs[0] + inputs[1]) * self.scale
