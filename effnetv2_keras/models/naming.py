"""Names of the layers and variables of a network that are the same in every process."""

from __future__ import annotations

import re
from collections.abc import Mapping

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of, sublayers


def is_nested(layer: tf.keras.layers.Layer) -> bool:
    """Returns whether a layer is a functional or sequential model, whose layers can be listed."""
    return isinstance(layer, tf.keras.Sequential) or bool(isinstance(layer, tf.keras.Model) and layer.outputs)


def leaf_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Returns the layers of a model in order, without inputs; a nested model is replaced by its layers."""
    leaves: list[tf.keras.layers.Layer] = []
    for layer in model.layers:
        if is_nested(layer):
            leaves += leaf_layers(layer)
        elif not isinstance(layer, tf.keras.layers.InputLayer):
            leaves.append(layer)
    return leaves


def layers_by_name(model: tf.keras.Model) -> dict[str, tf.keras.layers.Layer]:
    """Returns the ``leaf_layers`` by name.

    Raises:
        UsageError: if two layers have the same name, which is possible in two nested models.
    """
    named: dict[str, tf.keras.layers.Layer] = {}
    for layer in leaf_layers(model):
        if layer.name in named:
            raise UsageError(f"{model.name!r} has two layers called {layer.name!r}. Give them different names.")
        named[layer.name] = layer
    return named


def variable_names(layers: Mapping[str, tf.keras.layers.Layer]) -> dict[int, str]:
    """Returns the name of each variable, such as ``"stem/conv/kernel"``, by its ``id``.

    Args:
        layers: the layers by the key that is the first part of their variables' names.
    """
    names = {}
    for key, layer in layers.items():
        depthwise = _depthwise_kernels(layer)
        for variable in layer.weights:
            before, found, path = path_of(variable).partition(f"{layer.name}/")
            name = f"{key}/{path if found else before}"
            names[id(variable)] = re.sub(r"/kernel$", "/depthwise_kernel", name) if id(variable) in depthwise else name
    return names


def _depthwise_kernels(layer: tf.keras.layers.Layer) -> set[int]:
    """Returns the ``id`` of each depthwise kernel in a layer of Keras 3, which calls it ``kernel``; none in Keras 2."""
    parts = [layer, *sublayers(layer)] if IS_KERAS_3 else []
    return {id(part.kernel) for part in parts if isinstance(part, tf.keras.layers.DepthwiseConv2D) and part.built}
