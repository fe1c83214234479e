"""Detects whether ``tf.keras`` is Keras 2 or Keras 3, and hides the differences between them.

TensorFlow 2.15 has Keras 2. From 2.16 on it has Keras 3, or Keras 2 from the package ``tf_keras`` if
``TF_USE_LEGACY_KERAS=1`` is set before TensorFlow is imported. Everything works with both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from effnetv2_keras.errors import UsageError

IS_KERAS_3 = hasattr(tf.keras, "ops")
"""Whether ``tf.keras`` is Keras 3."""


def require_tensorflow() -> None:
    """Raises ``UsageError`` unless the backend of Keras is TensorFlow.

    Raises:
        UsageError: if the backend of Keras 3 is JAX, PyTorch or another one.
    """
    if IS_KERAS_3 and tf.keras.config.backend() != "tensorflow":
        raise UsageError(
            f"The backend of Keras is {tf.keras.config.backend()!r}, but these networks consist of TensorFlow "
            "operations. Set KERAS_BACKEND=tensorflow."
        )


def require_channels_last() -> None:
    """Raises ``UsageError`` unless Keras' default image format is ``channels_last``.

    Layers that Keras builds with ``channels_first`` would take the height of the images for their channels.

    Raises:
        UsageError: if ``tf.keras.backend.image_data_format()`` is ``"channels_first"``.
    """
    if tf.keras.backend.image_data_format() != "channels_last":
        raise UsageError(
            f"image_data_format is {tf.keras.backend.image_data_format()!r}, but must be 'channels_last': these "
            "networks take images [N, height, width, channels], and TensorFlow chooses the layout for the device. Call "
            "tf.keras.backend.set_image_data_format('channels_last') or change ~/.keras/keras.json, and transpose your "
            "images."
        )


def sublayers(layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """Returns all layers inside a layer or model, at any depth, without the layer itself."""
    if not IS_KERAS_3:
        return [part for part in layer.submodules if isinstance(part, tf.keras.layers.Layer)]
    return list(layer._flatten_layers(include_self=False))  # Keras 3 has no public function for this


def last_operation(model: tf.keras.Model) -> Any:
    """Returns what computes the output of a functional model: a layer, or in Keras 3 an operation outside any layer."""
    last = (model.operations if IS_KERAS_3 and hasattr(model, "operations") else model.layers)[-1]
    return last_operation(last) if isinstance(last, tf.keras.Model) and last.layers else last


def set_trainable_flag(layer: tf.keras.layers.Layer, value: bool) -> None:
    """Sets ``trainable`` of a layer and of all its parts.

    Keras 3 does not set it for the parts if the layer already has that value, so it is set to the opposite first.
    """
    layer.trainable = not value
    layer.trainable = value


def tf_variables(weights: Iterable[Any]) -> list[tf.Variable]:
    """Returns the TensorFlow variables of weights, which Keras 3 wraps in its own class.

    In the call of a layer, the public ``value`` of a weight of Keras 3 may be a copy in 16 bits instead.
    """
    return [weight if isinstance(weight, tf.Variable) else weight._value for weight in weights]


def replica_local(model: tf.keras.Model) -> list[tf.Variable]:
    """Returns the variables that each replica changes on its own: BatchNorm's moving averages."""
    if not IS_KERAS_3:
        return [weight for weight in model.weights if weight.synchronization == tf.VariableSynchronization.ON_READ]
    norms = [layer for layer in sublayers(model) if isinstance(layer, tf.keras.layers.BatchNormalization)]
    return tf_variables(weight for norm in norms for weight in (norm.moving_mean, norm.moving_variance))


def path_of(variable: tf.Variable) -> str:
    """Returns the name of a layer's variable, such as ``"block_0/project/conv/kernel"``, the same in Keras 2 and 3."""
    return as_in_keras_2(variable.path) if IS_KERAS_3 else str(variable.name).split(":")[0]


def as_in_keras_2(name: str) -> str:
    """Returns the Keras 2 name for the Keras 3 name of a variable; Keras 3 calls kernels ``kernel`` or ``_kernel``."""
    name = re.sub(r"\b_kernel$", "kernel", name)
    return re.sub(r"\bdepthwise/conv/kernel$", "depthwise/conv/depthwise_kernel", name)
