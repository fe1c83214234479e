"""Names for the layers and variables of a network, the same in every process."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import path_of


def is_nested(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer is a functional or sequential model, whose layers can be had one by one."""
    return isinstance(layer, tf.keras.Sequential) or bool(isinstance(layer, tf.keras.Model) and layer.outputs)


def leaf_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Gives a model's layers from the image to the output, those of models in it in their place; no inputs."""
    leaves: list[tf.keras.layers.Layer] = []
    for layer in model.layers:
        if is_nested(layer):
            leaves += leaf_layers(layer)
        elif not isinstance(layer, tf.keras.layers.InputLayer):
            leaves.append(layer)
    return leaves


def layers_by_name(model: tf.keras.Model) -> dict[str, tf.keras.layers.Layer]:
    """Gives the ``leaf_layers`` by name.

    Raises:
        UsageError: if two have the same, as they may in two models inside the model.
    """
    named: dict[str, tf.keras.layers.Layer] = {}
    for layer in leaf_layers(model):
        if layer.name in named:
            raise UsageError(f"{model.name!r} has two layers called {layer.name!r}; give each a name of its own.")
        named[layer.name] = layer
    return named


def variable_names(layers: Mapping[str, tf.keras.layers.Layer]) -> dict[int, str]:
    """Names variables after their layer, such as ``"stem/conv/kernel"``, by the ``id`` of each."""
    names = {}
    for key, layer in layers.items():
        for variable in layer.weights:
            before, found, path = path_of(variable).partition(f"{layer.name}/")
            names[id(variable)] = f"{key}/{path if found else before}"
    return names
