"""Exponential moving average (EMA) of a model's weights, stored in a second model of the same architecture.

The second model starts as a copy of the first and is never trained. To evaluate or export the average, use the second
model. The average covers all weights, including the moving statistics of BatchNorm (reference code).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def ema_decay_at(step: int | tf.Tensor | tf.Variable, decay: float) -> tf.Tensor:
    """Returns the decay after ``step`` steps, ``min(decay, (1 + step) / (10 + step))``; it is smaller at the start.

    Args:
        step: finished steps including the current one. The first value is 1, with a decay of 2/11.
        decay: upper limit of the decay, in [0, 1).

    Returns:
        Scalar float64, because in float32 ``1 - 0.9999`` is wrong in the fourth digit.
    """
    step = tf.cast(step, tf.float64)
    return tf.minimum(tf.constant(decay, tf.float64), (1.0 + step) / (10.0 + step))


def update_ema(
    strategy: tf.distribute.Strategy,
    *,
    source: Sequence[tf.Variable],
    average: Sequence[tf.Variable],
    decay: tf.Tensor,
) -> None:
    """Updates every average with its source: ``average = decay * average + (1 - decay) * source``.

    Call it outside ``strategy.run``, right after it, in the same ``tf.function``. On each replica, the copy of the
    average is updated with that replica's copy of the source. The train step keeps these copies equal.

    Args:
        strategy: the strategy in whose scope both models were built.
        source: weights of the model in training, float32.
        average: weights of the averaging model, float32, in the same order.
        decay: scalar in [0, 1); see ``ema_decay_at``.

    Raises:
        ValueError: if the two lists are not the weights of the same architecture.
    """
    _check_same_architecture(source, average)
    rate = tf.cast(1.0 - decay, tf.float32)

    def update(_: tf.Variable, rate: tf.Tensor) -> None:
        for new, old in zip(source, average):  # average -= rate * (average - value), in one pass over the average
            tf.raw_ops.ResourceApplyGradientDescent(var=old.handle, alpha=rate, delta=old - new)

    # One call for all weights, because each call takes milliseconds. In it, a variable is this replica's copy.
    strategy.extended.update(average[0], update, args=(rate,), group=False)


def _check_same_architecture(source: Sequence[tf.Variable], average: Sequence[tf.Variable]) -> None:
    advice = "Build the averaging model exactly like the trained one and pass all weights of both, in order."
    if len(source) != len(average):
        raise ValueError(f"The model has {len(source)} weights, but its average has {len(average)}. {advice}")
    for new, old in zip(source, average):
        if (new.name, new.shape) != (old.name, old.shape) or new.dtype != tf.float32 or old.dtype != tf.float32:
            raise ValueError(
                f"Cannot average {new.name} {tuple(new.shape)} {new.dtype.name} in {old.name} {tuple(old.shape)} "
                f"{old.dtype.name}: names and shapes must be equal, and the dtype must be float32. {advice}"
            )
