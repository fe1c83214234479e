"""Detects whether ``tf.keras`` is Keras 2 or Keras 3, and hides the differences between them.

TensorFlow 2.15 has Keras 2. From 2.16 on it has Keras 3, or Keras 2 from the package ``tf_keras`` if
``TF_USE_LEGACY_KERAS=1`` is set before TensorFlow is imported. Networks work with both; training needs Keras 2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.errors import UsageError

IS_KERAS_3 = hasattr(tf.keras, "ops")
"""Whether ``tf.keras`` is Keras 3."""


def require_keras_2(what: str) -> None:
    """Raises ``UsageError`` unless ``tf.keras`` is Keras 2.

    Args:
        what: subject of the error message, capitalized.

    Raises:
        UsageError: if ``tf.keras`` is Keras 3.
    """
    if IS_KERAS_3:
        raise UsageError(
            f"{what} needs Keras 2, but tf.keras is Keras {tf.keras.__version__}, and TF_USE_LEGACY_KERAS is "
            f"{os.environ.get('TF_USE_LEGACY_KERAS', 'not set')}. Install the version of tf_keras that matches "
            "TensorFlow. Then set TF_USE_LEGACY_KERAS=1, or leave it unset and `import effnetv2_keras.environment` "
            "before anything imports TensorFlow. (With Keras 3 you can build networks, load weights, fit and save.)"
        )


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


def set_trainable_flag(layer: tf.keras.layers.Layer, value: bool) -> None:
    """Sets ``trainable`` of a layer and of all its parts.

    Keras 3 does not set it for the parts if the layer already has that value, so it is set to the opposite first.
    """
    layer.trainable = not value
    layer.trainable = value


def tf_variables(weights: Sequence[Any]) -> list[tf.Variable]:
    """Returns the TensorFlow variables of weights, which Keras 3 wraps in its own class."""
    return [weight.value for weight in weights] if IS_KERAS_3 else list(weights)


def path_of(variable: tf.Variable) -> str:
    """Returns the name of a layer's variable, such as ``"block_0/project/conv/kernel"``, the same in Keras 2 and 3."""
    return as_in_keras_2(variable.path) if IS_KERAS_3 else str(variable.name).split(":")[0]


def as_in_keras_2(name: str) -> str:
    """Returns the Keras 2 name for the Keras 3 name of a variable; Keras 3 calls kernels ``kernel`` or ``_kernel``."""
    name = re.sub(r"\b_kernel$", "kernel", name)
    return re.sub(r"\bdepthwise/conv/kernel$", "depthwise/conv/depthwise_kernel", name)
