"""What files say about their networks besides the weights: settings that change the output but not names and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.architecture import keras_names
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.flat_layers import flat_layers, is_flat

Facts = Mapping[str, Any]
"""Those settings that a file has: ``bn_epsilon``, ``activation`` and ``mean``, the pixel 0..255 per channel that
becomes 0."""

_EPSILON = 1e-6
_LEVELS = 8.0
"""Smallest difference of two means that a warning is about, levels of 255. ``"symmetric"`` and ``"centered"`` differ
by 0.5, which changes no class."""


def of_model(model: tf.keras.Model) -> Facts:
    """Returns the settings of a model of ``build_model``, or of an EfficientNet of Keras' layers."""
    if not is_flat(model):
        roles = layers_by_role(model)
        return _of_layers([{"name": role, "config": layer.get_config()} for role, layer in roles.items()])
    layers = flat_layers(model)
    prefix = keras_names.prefix_of(layer.name for _, layer in layers) or ""
    found = _of_layers([{"name": layer.name[len(prefix) :], "config": layer.get_config()} for _, layer in layers])
    for place, layer in layers:
        if place != "preprocessing":
            continue
        if isinstance(layer, tf.keras.layers.Normalization) and layer.input_mean is not None:
            found["mean"] = (255 * np.asarray(layer.input_mean, np.float64)).round(1).tolist()
        elif isinstance(layer, tf.keras.layers.Rescaling) and np.any(layer.offset):
            found.update(_mean_of_rescaling(layer.get_config()))
    return found


def with_statistics(found: Facts, statistics: Mapping[str, Any], *, model_has_them: bool) -> Facts:
    """Returns the settings of a file, with the mean of its statistics of pixels unless the model takes them over.

    Args:
        found: other settings of the file.
        statistics: mean and variance that are among the file's weights; see ``pixel_statistics``.
        model_has_them: whether the model has them among its weights too.
    """
    mean = statistics.get("preprocessing/mean")
    if model_has_them or mean is None or np.shape(mean) != (3,):
        return found
    return {**found, "mean": (255 * np.asarray(mean, np.float64)).round(1).tolist()}


def of_archive(config: bytes) -> Facts:
    """Returns the settings in ``config.json`` of a ``.keras`` archive; empty for text that is not such JSON."""
    try:
        return _of_layers(list(_layers(json.loads(config))))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}


def differences(model: tf.keras.Model, found: Facts) -> tuple[str, ...]:
    """Returns a warning for each setting of a file that differs from that of the model."""
    own = of_model(model)
    return tuple(
        f"The network of the file has {name} {found[name]}, but the model has {own[name]}. The same weights give other "
        f"outputs then; {advice}."
        for name, advice in (
            ("bn_epsilon", "build the model with that bn_epsilon"),
            ("activation", "build the model with that activation"),
            ("mean", "build it with include_preprocessing=False and normalize pixels as the file's network does"),
        )
        if name in found and name in own and not _alike(name, found[name], own[name])
    )


def mean_of(values: Any) -> Facts:
    """Returns the mean that timm's ``config.json`` gives for pixels 0..1; empty if it is not three numbers."""
    try:
        mean = np.asarray(values, np.float64) * 255
    except (ValueError, TypeError):
        return {}
    return {"mean": mean.round(1).tolist()} if mean.shape == (3,) else {}


def _layers(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the layers of a serialized model, those of inner models too."""
    for layer in config["config"].get("layers", ()):
        yield layer
        yield from _layers(layer)


def _of_layers(layers: list[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in layers:
        name, config = str(layer["name"] if "name" in layer else layer["config"]["name"]), layer["config"]
        if name.endswith("stem") and "bn_epsilon" in config:
            found.update(bn_epsilon=float(config["bn_epsilon"]), activation=str(config["activation"]))
        elif name == "stem_bn":
            found["bn_epsilon"] = float(config["epsilon"])
        elif name == "stem_activation":
            found["activation"] = str(config["activation"])
        elif name.endswith("preprocessing") and "scale" in config:
            found.update(_mean_of_rescaling(config))
    return found


def _mean_of_rescaling(config: Mapping[str, Any]) -> Facts:
    """Returns the pixel that a Rescaling turns into 0, per channel."""
    mean = np.ravel(-np.asarray(config["offset"], np.float64) / np.asarray(config["scale"], np.float64))
    return {"mean": np.broadcast_to(mean, 3).round(1).tolist()} if mean.size in (1, 3) else {}


def _alike(name: str, left: Any, right: Any) -> bool:
    if name == "activation":
        return {"swish": "silu"}.get(left, left) == {"swish": "silu"}.get(right, right)
    return bool(np.allclose(left, right, rtol=0, atol=_LEVELS if name == "mean" else _EPSILON))
