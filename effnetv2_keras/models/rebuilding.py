"""Rebuilds a Keras model for training in stages: for images of any size, and with this package's layers."""

from __future__ import annotations

import collections
import re
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import sublayers
from effnetv2_keras.models.layers import Dropout, DropPath, HeadDropout
from effnetv2_keras.models.naming import is_nested, leaf_layers
from effnetv2_keras.models.normalization import BatchNorm

_layers = tf.keras.layers
_PIXELWISE = (_layers.Rescaling, _layers.Normalization)
_BATCH_NORMS = (_layers.BatchNormalization, BatchNorm)
_RANDOM_NAMES = (
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomHeight",
    "RandomRotation",
    "RandomTranslation",
    "RandomWidth",
    "RandomZoom",
)
_RANDOM = tuple(getattr(_layers, name) for name in _RANDOM_NAMES if hasattr(_layers, name))
"""Layers of Keras 2 or 3 that draw random numbers from their own state."""

NOT_REPEATED = (
    "which a resumed run would not repeat. Remove it (data.augment augments images), use a plain Dropout as a layer of "
    "the functional model, or draw numbers with effnetv2_keras.models.scopes.uniform in your own layer."
)
"""End of an error message: why no layer may draw random numbers from a state, and what to do instead."""


def rebuild(model: tf.keras.Model, *, bn_momentum: float, dtype: str) -> tf.keras.Model:
    """Returns a functional model rebuilt for images of any height and width, with the same weights.

    The last layer with weights is taken for the classifier. These layers change:

    - Plain ``Dropout`` between the classifier and the last layer with weights before it becomes ``HeadDropout``, whose
      rate each stage sets. Plain ``Dropout`` elsewhere keeps its rate.
    - ``Dropout`` of whole samples (with the ``noise_shape`` ``(None, 1, 1, 1)``) becomes ``DropPath`` with its rate.
    - ``BatchNormalization`` becomes ``BatchNorm`` with the same epsilon.
    - ``Normalization`` has its mean and variance as constants instead of weights.
    - Layers with names that Keras numbered are numbered again, so that their names do not depend on other models in the
      same process.
    - The dtype policy is ``dtype``, but float32 for ``Rescaling``, ``Normalization``, the classifier and later layers.

    Args:
        model: a functional model with one input.
        bn_momentum: momentum of every BatchNorm, in [0, 1).
        dtype: one of ``factory.DTYPES``.

    Raises:
        UsageError: if a layer draws random numbers that a resumed run could not repeat, a BatchNormalization cannot be
            replaced, or a layer cannot be rebuilt from its ``get_config``.
        ValueError: if Keras cannot build the model for images of any size.
    """
    rebuilder = _Rebuilder(leaf_layers(model), bn_momentum, dtype)
    again = rebuilder.rebuild(model, model.name)
    rebuilder.copy_weights()
    _refuse_stock_layers(again)
    return again


class _Rebuilder:
    """Rebuilds layers, and records the new layer for each old one."""

    def __init__(self, leaves: list[tf.keras.layers.Layer], bn_momentum: float, dtype: str) -> None:
        *_, last, classifier = -1, -1, *(number for number, leaf in enumerate(leaves) if leaf.weights)
        self._head = {id(leaf) for leaf in leaves[last + 1 : classifier]}
        self._top = {id(leaf) for leaf in leaves[classifier:]}
        self._bn_momentum, self._dtype = bn_momentum, dtype
        self._numbers: collections.Counter[str] = collections.Counter()
        self._pairs: list[tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]] = []

    def rebuild(self, model: tf.keras.Model, name: str) -> tf.keras.Model:
        """Returns a functional model rebuilt with new layers."""
        inputs = tf.nest.pack_sequence_as(model.input, _inputs_of_any_size(model))  # Keras 3 needs the same structure
        clone = tf.keras.models.clone_model(model, input_tensors=inputs, clone_function=self._remade)
        ends = [tensors[0] if len(tensors) == 1 else tensors for tensors in (clone.inputs, clone.outputs)]
        return tf.keras.Model(*ends, name=name)

    def copy_weights(self) -> None:
        """Copies the weights of the old layers to the new ones."""
        for old, new in self._pairs:
            if new.weights:
                new.set_weights(old.get_weights())

    def _remade(self, layer: Any) -> Any:
        if not isinstance(layer, tf.keras.layers.Layer):  # an operation of Keras 3, such as an addition
            return layer
        name = self._stable_name(layer)
        if isinstance(layer, tf.keras.Sequential):
            parts = [self._remade(part) for part in layer.layers]
            return tf.keras.Sequential([*_inputs_of_any_size(layer), *parts], name=name)
        if is_nested(layer):
            return self.rebuild(layer, name)
        try:
            new = self._replacement(layer, {**layer.get_config(), "name": name})
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt from its get_config: {error}. Make "
                "get_config return the arguments of __init__."
            ) from error
        self._pairs.append((layer, new))
        return new

    def _replacement(self, layer: tf.keras.layers.Layer, config: dict[str, Any]) -> tf.keras.layers.Layer:
        if "dtype" in config:
            config["dtype"] = "float32" if id(layer) in self._top or isinstance(layer, _PIXELWISE) else self._dtype
        if type(layer) is _layers.Dropout:
            kind = self._kind_of_dropout(layer)
            return kind(layer.rate, name=config["name"], dtype=config["dtype"])
        if type(layer) in _BATCH_NORMS:
            axes, last = np.ravel(config["axis"]).tolist(), layer.input_spec.ndim - 1
            if axes not in ([last], [-1]):
                raise UsageError(
                    f"BatchNormalization {layer.name!r} has axis {axes}, but must have the last axis, "
                    "which is that of the channels."
                )
            config.pop("synchronized", None)
            return BatchNorm.from_config({**config, "axis": last, "momentum": self._bn_momentum})
        if type(layer) is _layers.Normalization and layer.weights:
            mean, variance, _ = layer.get_weights()
            config.update(mean=mean.tolist(), variance=variance.tolist())
        return layer.from_config(config)

    def _kind_of_dropout(self, layer: tf.keras.layers.Dropout) -> type[tf.keras.layers.Layer]:
        shape = layer.noise_shape
        if shape is None:
            return HeadDropout if id(layer) in self._head else Dropout
        if shape[0] is not None or {*shape[1:]} != {1}:
            raise UsageError(
                f"Dropout {layer.name!r} has the noise_shape {tuple(shape)}, but must have none, or (None, 1, 1, 1), "
                "which drops whole samples."
            )
        return DropPath

    def _stable_name(self, layer: tf.keras.layers.Layer) -> str:
        """Returns the name of a layer; names that Keras generated are numbered within this model only."""
        base, kind = re.sub(r"_\d+$", "", layer.name), type(layer).__name__
        if base.startswith("tf."):
            base = base.replace(".", "_").replace("__", "_")
        elif base.replace("private", "", 1).replace("_", "") not in (kind.lower().replace("_", ""), "model"):
            return layer.name
        number = self._numbers[base]
        self._numbers[base] += 1
        return f"{base}_{number}" if number else base


def _inputs_of_any_size(model: tf.keras.Model) -> list[tf.Tensor]:
    """Returns new inputs like those of a model, but with height and width None for images and feature maps."""
    return [
        tf.keras.Input(
            (None, None, tensor.shape[3]) if len(tensor.shape) == 4 else tensor.shape[1:], dtype=tensor.dtype
        )
        for tensor in model.inputs
    ]


def _strength(layer: tf.keras.layers.Layer) -> float:
    """Returns the rate or standard deviation of a random layer; 1 if it has neither."""
    config: dict[str, Any] = layer.get_config()
    return float(config.get("rate", config.get("stddev", 1)))


def _refuse_stock_layers(model: tf.keras.Model) -> None:
    """Raises ``UsageError`` for random layers and BatchNormalizations of Keras that could not be replaced.

    They are inside other layers.
    """
    for layer in sublayers(model):
        if isinstance(layer, _RANDOM) and _strength(layer):
            raise UsageError(
                f"Layer {layer.name!r} ({type(layer).__name__}) draws random numbers from its own state, {NOT_REPEATED}"
            )
        if isinstance(layer, _layers.BatchNormalization) and not isinstance(layer, BatchNorm):
            raise UsageError(
                f"BatchNormalization {layer.name!r} is inside another layer or is a subclass, so train.sync_bn and "
                "train.accumulation_steps do not apply to it. Make it a layer of the functional model, or use "
                "effnetv2_keras.models.BatchNorm instead."
            )
