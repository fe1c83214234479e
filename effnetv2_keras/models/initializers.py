"""The initial values of kernels."""

from __future__ import annotations

import math
from typing import Literal

import tensorflow as tf

ClassifierInit = Literal["small", "reference"]


def conv_initializer() -> tf.keras.initializers.Initializer:
    """Returns an untruncated normal initializer with standard deviation ``sqrt(2 / fan_out)`` (reference code).

    For a depthwise kernel ``(k, k, channels, 1)`` the fan-out is ``k * k``.
    """
    return tf.keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def classifier_initializer(num_classes: int, kind: ClassifierInit = "small") -> tf.keras.initializers.Initializer:
    """Returns the initializer of the classifier's kernel, which is uniform in ``+-limit``.

    Args:
        num_classes: width of the classifier, at least 1.
        kind: ``"small"`` has the limit ``1 / sqrt(max(num_classes, 1000))``, so a network starts near chance whatever
            the number of classes. ``"reference"`` has ``1 / sqrt(num_classes)`` (reference code), which was made for
            1000 classes: with 10 of them the first logits have a deviation of about 3.
    """
    width = num_classes if kind == "reference" else max(num_classes, 1000)
    limit = 1 / math.sqrt(width)
    return tf.keras.initializers.RandomUniform(-limit, limit)
