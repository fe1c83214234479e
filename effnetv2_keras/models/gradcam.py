"""Grad-CAM: which parts of an image support its most likely class (Selvaraju et al. 2017, arXiv:1610.02391)."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

Network = Callable[..., tf.Tensor]


class GradCam:
    """A network that also tells which parts of an image support its answer.

    The map of an image is the sum of the last feature maps before pooling, each weighted by the mean gradient of the
    logit of the most likely class with respect to it; what is negative is set to 0.

    Args:
        model: a functional model that returns logits ``[N, classes]``.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self._model = model
        self._parts = _divided(model)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the logits and the maps of some images.

        Args:
            images: ``[N, S, S, 3]``, as the model takes them.

        Returns:
            Logits, float32 ``[N, classes]``, and maps, float32 ``[N, h, w]`` in [0, 1], whose largest value is 1 unless
            nothing supports the class. The maps are None if the network has no feature map that is pooled.
        """
        if self._parts is None:
            return self._model(images, training=False), None
        features = images
        *before, head = self._parts
        for part in before:
            features = part(features, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            logits = head(features, training=False)
            likeliest = tf.reduce_max(logits, axis=-1)
        gradients = tf.cast(tape.gradient(likeliest, features), tf.float32)
        weights = tf.reduce_mean(gradients, axis=[1, 2], keepdims=True)
        maps = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1))
        return logits, tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=[1, 2], keepdims=True))


def _divided(model: tf.keras.Model) -> list[Network] | None:
    """Returns the parts of a network; the last one begins with pooling. None if it cannot be divided.

    The network is divided before its last layer that turns a feature map into a vector or into a map of 1 x 1.
    """
    if isinstance(model.layers[-1], tf.keras.Model):  # preprocessing and then a network
        inner = _divided(model.layers[-1])
        return inner and [*model.layers[1:-1], *inner]
    poolings = [layer for layer in model.layers if _is_map(_input(layer)) and not _is_map(_output(layer))]
    try:
        features = _input(poolings[-1])
        return [tf.keras.Model(model.inputs[0], features), tf.keras.Model(features, model.outputs[0])]
    except (IndexError, ValueError):  # no pooling, or a connection that skips it
        return None


def _is_map(tensor: object) -> bool:
    shape = getattr(tensor, "shape", None)
    return shape is not None and len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _input(layer: tf.keras.layers.Layer) -> object:
    try:
        return layer.input
    except AttributeError:  # it is called several times, or never
        return None


def _output(layer: tf.keras.layers.Layer) -> object:
    try:
        return layer.output
    except AttributeError:
        return None
