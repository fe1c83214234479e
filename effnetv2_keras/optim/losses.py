"""The training loss: smoothed cross-entropy, over the classes or of each by itself, and L2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

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


def sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Computes the mean over the classes of each one's own cross-entropy: whether the image has that label.

    A label ``y`` becomes ``y * (1 - label_smoothing) + label_smoothing / 2`` (reference code, ``loss_type`` sigmoid).
    Arguments and result as for ``softmax_cross_entropy``, but labels lie in [0, 1] and need not sum to anything.
    """
    smoothed = tf.cast(labels, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / 2.0
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(smoothed, logits), axis=-1)


def summed_sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """As ``sigmoid_cross_entropy``, but the sum over the classes, and labels stay as they are.

    Reference code, ``loss_type`` custom. ``label_smoothing`` must be 0.
    """
    del label_smoothing  # refused by the configuration
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits), axis=-1)


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "custom": summed_sigmoid_cross_entropy,
}
"""Loss of each image by the name in ``train.loss_type``: ``(labels, logits, *, label_smoothing) -> [batch]``."""


def loss_of_each(loss_type: str, labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float = 0.0) -> tf.Tensor:
    """Computes the loss of each image by the name of its kind; softmax takes the labels of an image in equal shares.

    Args:
        loss_type: a key of ``LOSSES``.
        labels: ``[batch, classes]`` floats in [0, 1]; an image may have several, or none.
        logits: ``[batch, classes]`` float32.
        label_smoothing: see the loss.

    Returns:
        ``[batch]`` float32.
    """
    labels = sharing(labels) if loss_type == "softmax" else labels
    return LOSSES[loss_type](labels, logits, label_smoothing=label_smoothing)


def score(loss_type: str, logits: tf.Tensor) -> tf.Tensor:
    """Gives the logit of each class' probability, by which the images of a class are ranked.

    A network trained with a sigmoid gives it as it is. Of one trained with softmax, logits are only determined up to
    a constant for each image, so they say nothing across images: it is ``log(p / (1 - p))`` of the softmax, in which
    all probabilities from 1 - 1e-7 on are the same. (The reference code ranks by the logits for every loss.)

    Args:
        loss_type: a key of ``LOSSES``.
        logits: ``[batch, classes]`` float32.

    Returns:
        ``[batch, classes]`` float32.
    """
    if loss_type != "softmax":
        return logits
    log_p = tf.minimum(tf.nn.log_softmax(logits), -1e-7)
    return log_p - tf.math.log(-tf.math.expm1(log_p))


def sharing(labels: tf.Tensor) -> tf.Tensor:
    """Divides the labels of an image by their sum, so that it has one in all; an image without any stays without.

    Args:
        labels: floats of at least 0, ``[batch, classes]``.
    """
    return tf.math.divide_no_nan(labels, tf.reduce_sum(labels, axis=-1, keepdims=True))


def l2_penalty(variables: Iterable[tf.Variable]) -> tf.Tensor:
    """Adds up ``0.5 * ||v||^2`` over the variables, a float32 scalar whose gradient is the variable itself.

    Each replica has all the weights: divide by the number of replicas where the gradients are summed.
    """
    return tf.add_n([tf.constant(0.0), *(tf.nn.l2_loss(variable) for variable in variables)])
