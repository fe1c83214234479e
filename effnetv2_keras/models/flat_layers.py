"""Finds the layers of networks of Keras' own layers, by Keras' names or by the roles of ``build_model``."""

from __future__ import annotations

import re

import tensorflow as tf

from effnetv2_keras.architecture import keras_names
from effnetv2_keras.models.keras_compat import as_in_keras_2, path_of

_KERAS_BLOCK = re.compile(r"block\d+[a-z]+(?=_)")


def is_flat(model: tf.keras.Model) -> bool:
    """Returns whether the model is an EfficientNet of Keras' own layers, of this package or of Keras."""
    return keras_names.prefix_of(layer.name for layer in model.layers) is not None


def flat_layers(model: tf.keras.Model) -> list[tuple[str, tf.keras.layers.Layer]]:
    """Returns the layers of a network of Keras' layers in order, each with its place.

    The place of a layer with weights is the beginning of their canonical names, such as ``"block_6/expand/conv"``. That
    of other layers is their role, such as ``"block_6"``. Other layers of the model are left out.
    """
    places = keras_names.places(layer.name for layer in model.layers)
    return [(places[layer.name], layer) for layer in model.layers if layer.name in places]


def names_of(place: str, layer: tf.keras.layers.Layer) -> tuple[str, ...]:
    """Returns the names by which a layer can be chosen: its role, that of Keras' block, and its own name."""
    block = _KERAS_BLOCK.search(layer.name)
    role = place.split("/")[0]
    return (role, block[0], layer.name) if block and role.startswith("block_") else (role, layer.name)


def flat_variable_names(model: tf.keras.Model) -> dict[int, str]:
    """Returns the canonical name of each variable of a network of Keras' layers, by its ``id``."""
    names = {}
    for place, layer in flat_layers(model):
        for variable in layer.weights:
            names[id(variable)] = as_in_keras_2(f"{place}/{path_of(variable).rpartition('/')[2]}")
    return names


def flat_endpoints(model: tf.keras.Model) -> dict[int, tf.Tensor]:
    """Returns the last feature map at each stride, as ``factory.endpoints`` does."""
    strides: dict[str, int] = {}
    outputs = {}
    for place, layer in flat_layers(model):
        role = place.split("/")[0]
        if role == "stem" or role.startswith("block_"):
            strides[role] = strides.get(role, 1) * (layer.strides[0] if hasattr(layer, "strides") else 1)
            outputs[role] = layer.output
    found, stride = {}, 1
    for role, output in outputs.items():
        stride *= strides[role]
        found[stride] = output
    return found
