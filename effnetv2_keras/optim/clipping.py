"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def clip_gradients(gradients: Sequence[tf.Tensor], limit: float) -> list[tf.Tensor]:
    """Clips each gradient to the norm ``limit``, then all of them together to the global norm ``limit``.

    This is the rule of the reference code. There, however, each TPU core clips its own part of the gradients before
    they are summed, so the effect of a limit depends on the number of cores. Here, pass the gradients of the global
    batch, which are the same on each replica, after removing any loss scaling.

    Args:
        gradients: float tensors of any shapes.
        limit: the largest norm, above 0.

    Returns:
        The clipped gradients. Their joint direction changes if the norm of a single gradient exceeds ``limit``.
    """
    # As tf.clip_by_norm for each, with the small operations for all of them at once.
    norms = tf.sqrt(tf.stack([tf.reduce_sum(gradient * gradient) for gradient in gradients]))
    divisors = tf.unstack(tf.maximum(norms, limit))
    each = [gradient * limit / divisor for gradient, divisor in zip(gradients, divisors)]
    return tf.clip_by_global_norm(each, limit)[0]
