"""The training loss: smoothed cross-entropy and L2."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def softmax_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Computes the cross-entropy of each image with smoothed labels.

    A label row ``y`` of ``C`` classes becomes ``y * (1 - label_smoothing) + sum(y) * label_smoothing / C``: its sum
    stays what it was, and a row of zeros, which marks an image that could not be read, has neither loss nor gradient.

    Args:
        labels: ``[batch, classes]`` floats of at least 0; each row sums to 1, or to 0 for an image to ignore.
        logits: ``[batch, classes]`` float32.
        label_smoothing: share of the label spread evenly over the classes, in [0, 1).

    Returns:
        ``[batch]`` float32. Not averaged: divide the sum over all replicas by the global batch size.
    """
    labels = tf.cast(labels, logits.dtype)
    spread = tf.reduce_mean(labels, axis=-1, keepdims=True)
    smoothed = labels * (1.0 - label_smoothing) + spread * label_smoothing
    # The fused op takes the gradient for labels that sum to 1: softmax - labels, which is not zero for a row of zeros.
    return -tf.reduce_sum(smoothed * tf.nn.log_softmax(logits), axis=-1)


def l2_penalty(variables: Iterable[tf.Variable]) -> tf.Tensor:
    """Adds up ``0.5 * ||v||^2`` over the variables, a float32 scalar whose gradient is the variable itself.

    Each replica has all the weights: divide by the number of replicas where the gradients are summed.
    """
    return tf.add_n([tf.constant(0.0), *(tf.nn.l2_loss(variable) for variable in variables)])
