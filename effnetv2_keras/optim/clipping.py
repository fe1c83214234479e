"""Gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def clip_gradients(gradients: Sequence[tf.Tensor], limit: float) -> list[tf.Tensor]:
    """Scales each gradient down to the norm ``limit``, and then all of them to the global norm ``limit``.

    As in the reference code, except that there each TPU core clips its own share of the gradients before they are
    summed, so that the same limit means something else on another number of cores. Pass the gradients of the whole
    batch: the same on each replica, and with any loss scaling taken out.

    Args:
        gradients: float tensors of any shapes.
        limit: the largest norm, above 0.

    Returns:
        The clipped gradients; they point in another direction than the given ones where some were longer than
        ``limit`` on their own.
    """
    each = [tf.clip_by_norm(gradient, limit) for gradient in gradients]
    return tf.clip_by_global_norm(each, limit)[0]
