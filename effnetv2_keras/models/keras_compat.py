"""Which Keras ``tf.keras`` is, and what differs between them.

TensorFlow 2.15 has Keras 2. From 2.16 on it has Keras 3, or Keras 2 from the package ``tf_keras`` where
``TF_USE_LEGACY_KERAS=1`` was set before TensorFlow was imported. Networks work with each; training needs Keras 2.
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
    """Refuses what only Keras 2 can do.

    Args:
        what: it, as the begin of a sentence.

    Raises:
        UsageError: if ``tf.keras`` is Keras 3.
    """
    if IS_KERAS_3:
        raise UsageError(
            f"{what} needs Keras 2, but tf.keras is Keras {tf.keras.__version__} already; TF_USE_LEGACY_KERAS is "
            f"{os.environ.get('TF_USE_LEGACY_KERAS', 'not set')}. Install tf_keras of TensorFlow's version, and set "
            "TF_USE_LEGACY_KERAS=1 or, where it is not set, `import effnetv2_keras.environment` before anything "
            "imports TensorFlow. (With Keras 3 networks can be built, given weights, fitted and saved.)"
        )


def require_tensorflow() -> None:
    """Refuses other backends of Keras 3.

    Raises:
        UsageError: if Keras computes with JAX, PyTorch or the like.
    """
    if IS_KERAS_3 and tf.keras.config.backend() != "tensorflow":
        raise UsageError(
            f"The backend of Keras is {tf.keras.config.backend()!r}, but these networks are made of TensorFlow's "
            "operations; set KERAS_BACKEND=tensorflow."
        )


def sublayers(layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """Gives all layers inside a layer or model, at any depth, without itself."""
    if not IS_KERAS_3:
        return [part for part in layer.submodules if isinstance(part, tf.keras.layers.Layer)]
    return list(layer._flatten_layers(include_self=False))  # Keras 3 has no public way


def set_trainable_flag(layer: tf.keras.layers.Layer, value: bool) -> None:
    """Sets ``layer.trainable``, and that of all its parts; Keras 3 spares those where the layer's own is so already."""
    layer.trainable = not value
    layer.trainable = value


def tf_variables(weights: Sequence[Any]) -> list[tf.Variable]:
    """Gives TensorFlow's own variables, which Keras 3 wraps."""
    return [weight.value for weight in weights] if IS_KERAS_3 else list(weights)


def path_of(variable: tf.Variable) -> str:
    """Gives the name of a layer's variable, such as ``"block_0/project/conv/kernel"``: the same with each Keras."""
    return as_in_keras_2(variable.path) if IS_KERAS_3 else str(variable.name).split(":")[0]


def as_in_keras_2(name: str) -> str:
    """Gives Keras 2's name of a variable for Keras 3's, in which all kernels are called ``kernel`` or ``_kernel``."""
    name = re.sub(r"\b_kernel$", "kernel", name)
    return re.sub(r"\bdepthwise/conv/kernel$", "depthwise/conv/depthwise_kernel", name)
