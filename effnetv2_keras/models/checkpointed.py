"""A model's weights under the same names in a checkpoint, whichever Keras the model is of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from effnetv2_keras.models.keras_compat import IS_KERAS_3, sublayers, tf_variables
from effnetv2_keras.models.naming import is_nested


def checkpointed(model: tf.keras.Model) -> Any:
    """Returns the part of a ``tf.train.Checkpoint`` that saves and restores the weights of a model.

    With Keras 2 it is the model. Keras 3 tracks the layers of a model under other names, so there it is a tree of
    the model's variables with the names of Keras 2, such as ``layer_with_weights-1/branch/0/conv/kernel``. A checkpoint
    that was written with one can be restored with the other.
    """
    return _of_model(model) if IS_KERAS_3 else model


def _of_model(model: tf.keras.Model) -> tf.Module:
    with_weights = [layer for layer in model.layers if layer.weights]
    return _node((f"layer_with_weights-{number}", _of_layer(layer)) for number, layer in enumerate(with_weights))


def _of_layer(layer: tf.keras.layers.Layer) -> tf.Module:
    if is_nested(layer):
        return _of_model(layer)
    branch = getattr(layer, "branch", None)
    if isinstance(branch, (list, tuple)):  # a block
        return _node([("branch", [_of_layer(part) for part in branch])])
    parts = [part for part in layer._layers if part.weights]  # Keras 3 has no public list of the parts of a layer
    of_parts = {id(weight) for part in sublayers(layer) for weight in part.weights}
    own = [weight for weight in layer.weights if id(weight) not in of_parts]
    return _node(
        [
            *((_name(layer, weight), variable) for weight, variable in zip(own, tf_variables(own))),
            *((part.name, _of_layer(part)) for part in parts),
        ]
    )


def _name(layer: tf.keras.layers.Layer, weight: Any) -> str:
    """Returns the name that a weight has as an attribute of the layer in Keras 2."""
    is_depthwise = isinstance(layer, tf.keras.layers.DepthwiseConv2D) and weight.name == "kernel"
    return "depthwise_kernel" if is_depthwise else str(weight.name)


def _node(parts: Iterable[tuple[str, Any]]) -> tf.Module:
    node = tf.Module()
    for name, part in parts:
        setattr(node, name, part)
    return node
