"""Grad-CAM against its definition, and on networks of Keras."""

import numpy as np
import tensorflow as tf

from effnetv2_keras.models import build_model
from effnetv2_keras.models.gradcam import GradCam
from tests.tiny import SMALL

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3)).astype(np.float32)


def test_the_map_is_the_weighted_sum_of_the_features():
    """After average pooling and a dense layer, the gradient of a logit is the kernel, the same at each place."""
    tf.keras.utils.set_random_seed(1)
    model = build_model(SMALL, num_classes=4)
    logits, maps = GradCam(model)(tf.constant(IMAGES))
    np.testing.assert_allclose(logits, model(IMAGES, training=False), atol=1e-5)
    features = tf.keras.Model(model.inputs[0], model.get_layer("head").output)(IMAGES, training=False).numpy()
    kernel = model.get_layer("classifier").kernel.numpy()
    for image, found, likeliest in zip(features, maps.numpy(), logits.numpy().argmax(1)):
        expected = np.maximum(image @ kernel[:, likeliest], 0)
        assert expected.max() > 0
        np.testing.assert_allclose(found, expected / expected.max(), atol=1e-4)


def test_the_map_is_that_before_the_last_pooling():
    """Not that of squeeze-and-excitation; in a network behind preprocessing, with a convolution after pooling."""
    layers = tf.keras.layers
    inputs = tf.keras.Input([None, None, 3])
    features = layers.Conv2D(4, 3, strides=8, padding="same", name="features")(inputs)
    squeezed = layers.GlobalAveragePooling2D()(features)
    excited = layers.Reshape([1, 1, 4])(layers.Dense(4, activation="sigmoid")(squeezed))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Multiply()([features, excited]))
    network = tf.keras.Model(inputs, layers.Flatten()(layers.Conv2D(5, 1, name="logits")(pooled)))
    images = tf.keras.Input([None, None, 3])
    model = tf.keras.Model(images, network(layers.Rescaling(1 / 255)(images)))
    logits, maps = GradCam(model)(tf.constant(IMAGES))
    np.testing.assert_allclose(logits, model(IMAGES, training=False), atol=1e-5)
    multiplied = tf.keras.Model(network.inputs[0], network.layers[-4].output)(IMAGES / 255).numpy()
    expected = np.maximum(multiplied @ network.get_layer("logits").kernel.numpy()[0, 0], 0)
    expected = np.stack([image[..., likeliest] for image, likeliest in zip(expected, logits.numpy().argmax(1))])
    assert maps.shape == (3, 6, 6)
    largest = np.maximum(expected.max((1, 2), keepdims=True), 1e-9)
    np.testing.assert_allclose(maps, expected / largest, atol=1e-4)


def test_a_network_without_a_feature_map_gives_only_its_answer():
    model = tf.keras.Sequential([tf.keras.layers.Input([48, 48, 3]), tf.keras.layers.Lambda(lambda x: x[:, 0, 0])])
    logits, maps = GradCam(model)(tf.constant(IMAGES))
    assert maps is None or maps.shape[0] == 3
    np.testing.assert_array_equal(logits, IMAGES[:, 0, 0])
