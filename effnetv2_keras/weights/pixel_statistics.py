"""The mean and variance of pixels that V1's networks of Keras' layers keep among their weights.

Their canonical names are ``preprocessing/mean``, ``preprocessing/variance`` (both of pixels 0..1) and
``preprocessing/count``. Files of Keras have them. Other files do not, because their networks have constants instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.models.flat import IMAGENET
from effnetv2_keras.models.flat_layers import flat_layers, is_flat
from effnetv2_keras.weights.layout import PREPROCESSING, Array

MEAN, VARIANCE, COUNT = (f"{PREPROCESSING}{kind}" for kind in ("mean", "variance", "count"))

_SAME = 1e-3
"""Relative difference below which a variance is taken for ImageNet's standard deviation, as Keras' files have it."""


def split(weights: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns the statistics of a file, with the variance that its network normalizes with, and all other weights.

    Keras' published V1 files have ImageNet's standard deviation in place of the variance, because their networks divide
    by its square root a second time, in a layer without weights.
    """
    found = {name: value for name, value in weights.items() if name.startswith(PREPROCESSING)}
    rest = {name: value for name, value in weights.items() if name not in found}
    variance = found.get(VARIANCE)
    if variance is not None and np.shape(variance) == (3,) and np.allclose(variance, IMAGENET, rtol=_SAME, atol=0):
        found[VARIANCE] = np.asarray(variance, np.float64) * IMAGENET
    return found, rest


def of_network(model: tf.keras.Model) -> dict[str, Array]:
    """Returns the statistics that correspond to the ``preprocessing`` layer of a model of ``build_model``, if any."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Rescaling) and layer.name.endswith("preprocessing"):
            scale, offset = (np.asarray(value, np.float64).reshape(-1) for value in (layer.scale, layer.offset))
            return {MEAN: -offset / scale / 255, VARIANCE: (1 / (255 * scale)) ** 2, COUNT: np.asarray(0)}
    return {}


def default(channels: int) -> dict[str, Array]:
    """Returns the statistics of networks whose files have none: ImageNet's, or those of ``(pixel - 128) / 128``."""
    middle, deviation = (np.asarray(v) for v in specs.PIXEL_STATISTICS["imagenet" if channels == 3 else "centered"])
    if channels != 3:
        middle, deviation = np.repeat(middle[:1], channels), np.repeat(deviation[:1], channels)
    return {MEAN: middle / 255, VARIANCE: (deviation / 255) ** 2, COUNT: np.asarray(0)}


def for_model(model: tf.keras.Model, found: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the values of the model's own statistics; empty if the model has none among its weights.

    Args:
        model: the model.
        found: the statistics of the file; ``default`` replaces them if there are none or they do not fit.
    """
    channels = next((layer.weights[0].shape[0] for layer in _adaptable(model)), None)
    if channels is None:
        return {}
    fits = all(name in found and np.shape(found[name]) in [(1,), (channels,)] for name in (MEAN, VARIANCE))
    values = {COUNT: np.asarray(0), **found} if fits else default(channels)
    values.update({name: np.broadcast_to(values[name], channels) for name in (MEAN, VARIANCE)})
    twice = sum(isinstance(layer, tf.keras.layers.Rescaling) for _, layer in _preprocessing(model)) > 1
    return {**values, VARIANCE: np.asarray(values[VARIANCE], np.float64) / IMAGENET} if twice else values


def finalize(model: tf.keras.Model) -> None:
    """Makes the normalization use its new weights; ``set_weights`` of Keras 3 does not."""
    for layer in _adaptable(model):
        layer.finalize_state()


def _adaptable(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    return [
        layer
        for _, layer in _preprocessing(model)
        if isinstance(layer, tf.keras.layers.Normalization) and layer.weights
    ]


def _preprocessing(model: tf.keras.Model) -> list[tuple[str, tf.keras.layers.Layer]]:
    layers = flat_layers(model) if is_flat(model) else []
    return [(place, layer) for place, layer in layers if place == PREPROCESSING.rstrip("/")]
