"""The training losses: softmax and sigmoid cross-entropy with label smoothing, focal losses, and the L2 penalty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable

import tensorflow as tf


def softmax_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Returns the softmax cross-entropy of each image with smoothed labels.

    A label row ``y`` of ``C`` classes becomes ``y * (1 - label_smoothing) + sum(y) * label_smoothing / C``, which has
    the same sum. A row of zeros marks an image that could not be read; it has no loss and no gradient.

    Args:
        labels: ``[batch, classes]`` floats of at least 0; each row sums to 1, or to 0 for an image to ignore.
        logits: ``[batch, classes]`` float32.
        label_smoothing: fraction of the label that is spread evenly over the classes, in [0, 1).

    Returns:
        ``[batch]`` float32, not averaged. Divide the sum over all replicas by the global batch size.
    """
    # TensorFlow's fused op assumes labels that sum to 1: its gradient softmax - labels is not 0 for a row of zeros.
    return -tf.reduce_sum(_smoothed(labels, logits, label_smoothing) * tf.nn.log_softmax(logits), axis=-1)


def _smoothed(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns the labels as ``softmax_cross_entropy`` smooths them, of the dtype of the logits."""
    labels = tf.cast(labels, logits.dtype)
    spread = tf.reduce_mean(labels, axis=-1, keepdims=True)
    return labels * (1.0 - label_smoothing) + spread * label_smoothing


def sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Returns the binary cross-entropy of each image, averaged over the classes.

    A label ``y`` becomes ``y * (1 - label_smoothing) + label_smoothing / 2`` (reference code, ``loss_type`` sigmoid).
    Arguments and result are those of ``softmax_cross_entropy``, but labels are in [0, 1] with any sum.
    """
    smoothed = tf.cast(labels, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / 2.0
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(smoothed, logits), axis=-1)


def summed_sigmoid_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Returns the binary cross-entropy of each image, summed over the classes, without label smoothing.

    Source: reference code, ``loss_type`` custom. Arguments and result are those of ``sigmoid_cross_entropy``, but
    ``label_smoothing`` must be 0.
    """
    del label_smoothing  # the configuration allows only 0
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits), axis=-1)


def softmax_focal_loss(
    labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float, focal_gamma: float = 0.0
) -> tf.Tensor:
    """Returns the focal loss of each image over the softmax of its classes.

    For one label with probability ``p`` it is ``-(1 - p) ** focal_gamma * log(p)`` (Lin et al. 2017, arXiv 1708.02002,
    equation 4). A soft label ``y``, as label smoothing and mixing make it, has the mean of the losses of the classes:
    ``-sum(y_c * (1 - p_c) ** focal_gamma * log(p_c))``. The loss of a mixed image is therefore the mix of two focal
    losses, as for cross-entropy (Zhang et al. 2017, arXiv 1710.09412). ``tf.keras.losses.CategoricalFocalCrossentropy``
    with ``alpha=1`` has the same definition, but clips probabilities, so its gradient vanishes for large logits.

    Args:
        labels: as for ``softmax_cross_entropy``.
        logits: as for ``softmax_cross_entropy``.
        label_smoothing: as for ``softmax_cross_entropy``.
        focal_gamma: exponent of at least 0; 0 gives ``softmax_cross_entropy``.

    Returns:
        ``[batch]`` float32, not averaged.
    """
    log_p = tf.nn.log_softmax(logits)
    focus = tf.exp(focal_gamma * _log_complement(log_p))
    return -tf.reduce_sum(_smoothed(labels, logits, label_smoothing) * focus * log_p, axis=-1)


def sigmoid_focal_loss(
    labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float, focal_gamma: float = 0.0
) -> tf.Tensor:
    """Returns the binary focal loss of each image, averaged over the classes.

    With the probability ``p`` of a class it is ``-y * (1 - p) ** focal_gamma * log(p) - (1 - y) * p ** focal_gamma *
    log(1 - p)``, which for the labels 0 and 1 is equation 4 of Lin et al. 2017 (arXiv 1708.02002), and for soft labels
    the mean of both, as in ``softmax_focal_loss``. It has no factor alpha. (Lin et al. divide the sum over all classes
    by the number of labels.)

    Arguments and result are those of ``softmax_focal_loss``; labels are those of ``sigmoid_cross_entropy``, and 0 for
    ``focal_gamma`` gives that function.
    """
    smoothed = tf.cast(labels, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / 2.0
    log_p, log_rest = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    positive = smoothed * tf.exp(focal_gamma * log_rest) * log_p
    negative = (1.0 - smoothed) * tf.exp(focal_gamma * log_p) * log_rest
    return -tf.reduce_mean(positive + negative, axis=-1)


def _log_complement(log_p: tf.Tensor) -> tf.Tensor:
    """Returns ``log(1 - p)``, finite and with a finite gradient; probabilities above 1 - 1e-7 have the same value."""
    return tf.math.log(-tf.math.expm1(tf.minimum(log_p, -1e-7)))


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "custom": summed_sigmoid_cross_entropy,
    "focal": softmax_focal_loss,
    "sigmoid_focal": sigmoid_focal_loss,
}
"""The loss for each ``train.loss_type``: ``(labels, logits, *, label_smoothing) -> [batch]``."""
_SOFTMAX, _FOCAL = ("softmax", "focal"), ("focal", "sigmoid_focal")


def loss_of_each(
    loss_type: str, labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0
) -> tf.Tensor:
    """Returns the loss of each image; for softmax, several labels of an image get equal weights that sum to 1.

    Args:
        loss_type: a key of ``LOSSES``.
        labels: ``[batch, classes]`` floats in [0, 1]; an image may have several labels, or none.
        logits: ``[batch, classes]`` float32.
        label_smoothing: as for the function in ``LOSSES``.
        focal_gamma: exponent of the focal losses; 0 gives their cross-entropy. Other losses have none.

    Returns:
        ``[batch]`` float32.
    """
    labels = labels if are_independent(loss_type) else sharing(labels)
    gamma = {"focal_gamma": focal_gamma} if loss_type in _FOCAL else {}
    return LOSSES[loss_type](labels, logits, label_smoothing=label_smoothing, **gamma)


def score(loss_type: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns a score for each image and class that ranks the images of a class: the logit of the class probability.

    For a network trained with a sigmoid loss, these are its logits. Softmax logits are determined only up to a constant
    for each image and cannot be compared between images. For softmax, the score is therefore ``log(p / (1 - p))`` of
    the softmax probability ``p``; probabilities above 1 - 1e-7 have the same score. (The reference code ranks by the
    logits for every loss.)

    Args:
        loss_type: a key of ``LOSSES``.
        logits: ``[batch, classes]`` float32.

    Returns:
        ``[batch, classes]`` float32.
    """
    if are_independent(loss_type):
        return logits
    log_p = tf.minimum(tf.nn.log_softmax(logits), -1e-7)
    return log_p - _log_complement(log_p)


def probabilities(loss_type: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns the probability of each class, as the loss takes the logits.

    For softmax, the probabilities of an image sum to 1. For a sigmoid loss, the classes are independent: each
    probability is in [0, 1], whatever the others are.

    Args:
        loss_type: a key of ``LOSSES``.
        logits: ``[batch, classes]`` float32.

    Returns:
        ``[batch, classes]`` float32.
    """
    return tf.sigmoid(logits) if are_independent(loss_type) else tf.nn.softmax(logits)


def mean_logits(loss_type: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns the logits of the mean of several probabilities.

    Args:
        loss_type: a key of ``LOSSES``.
        logits: ``[K, batch, classes]`` float32; the probabilities of these K are averaged.

    Returns:
        ``[batch, classes]`` float32. ``probabilities`` of them is the mean of ``probabilities`` of ``logits``.
    """
    if are_independent(loss_type):
        chances, others = (tf.reduce_logsumexp(tf.math.log_sigmoid(values), 0) for values in (logits, -logits))
        return chances - others
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits), 0) - tf.math.log(tf.cast(tf.shape(logits)[0], tf.float32))


def are_independent(loss_type: str) -> bool:
    """Returns whether the classes of an image are independent of each other, as with a sigmoid loss."""
    return loss_type not in _SOFTMAX


def activation(loss_type: str) -> str:
    """Returns the name of the function of ``probabilities``, ``"softmax"`` or ``"sigmoid"``."""
    return "sigmoid" if are_independent(loss_type) else "softmax"


def sharing(labels: tf.Tensor) -> tf.Tensor:
    """Returns the labels divided by their sum for each image; a row of zeros stays zero.

    Args:
        labels: floats of at least 0, ``[batch, classes]``.
    """
    return tf.math.divide_no_nan(labels, tf.reduce_sum(labels, axis=-1, keepdims=True))


def mean_weight(labels: tf.Tensor, class_weights: Sequence[float]) -> tf.Tensor:
    """Returns the mean weight of the labels of each image; an image without labels has the weight 0.

    Args:
        labels: float32 of at least 0, ``[batch, classes]``; a label that is half of another counts half as much.
        class_weights: weight of each class.

    Returns:
        ``[batch]`` float32.
    """
    return tf.linalg.matvec(sharing(labels), tf.constant(class_weights, tf.float32))


def l2_penalty(variables: Iterable[tf.Variable]) -> tf.Tensor:
    """Returns the sum of ``0.5 * ||v||^2`` over the variables, a float32 scalar; the gradient for ``v`` is ``v``.

    Every replica has all weights. If gradients are summed over replicas, divide the penalty by their number.
    """
    return tf.add_n([tf.constant(0.0), *(tf.nn.l2_loss(variable) for variable in variables)])
