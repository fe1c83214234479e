"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def norms_of(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of each gradient, float32 ``[len(gradients)]``."""
    return tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(gradient) for gradient in gradients]))


def clip_gradients(gradients: Sequence[tf.Tensor], norms: tf.Tensor, limit: float) -> list[tf.Tensor]:
    """Clips each gradient to the norm ``limit``, then all of them together to the global norm ``limit``.

    This is the rule of the reference code. There, however, each TPU core clips its own part of the gradients before
    they are summed, so the effect of a limit depends on the number of cores. Here, pass the gradients of the global
    batch, which are the same on each replica, after removing any loss scaling.

    Args:
        gradients: float tensors of any shapes.
        norms: result of ``norms_of``.
        limit: the largest norm, above 0.

    Returns:
        The clipped gradients, all of them NaN if one is not finite. Their joint direction changes if the norm of a
        single gradient exceeds ``limit``.
    """
    each = limit / tf.maximum(norms, limit)
    whole = tf.norm(norms * each)
    factors = each * (limit / tf.maximum(whole, limit))
    # Each gradient is multiplied once, by a factor that is the work of a few operations for all of them.
    factors = tf.where(tf.math.is_finite(tf.reduce_sum(norms)), factors, float("nan"))
    return [gradient * factor for gradient, factor in zip(gradients, tf.unstack(factors))]
