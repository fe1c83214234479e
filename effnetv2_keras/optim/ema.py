"""Exponential moving average of a model's weights, kept in the weights of a second model of the same architecture.

The second model starts as a copy of the first and is never trained; evaluating or exporting the average means using
that model. The average covers all weights, the moving statistics of BatchNorm included (reference code).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def ema_decay_at(step: int | tf.Tensor | tf.Variable, decay: float) -> tf.Tensor:
    """Decay after ``step`` steps: ``min(decay, (1 + step) / (10 + step))``, so that the first steps count more.

    Args:
        step: finished steps, this one included: 1, and so a decay of 2/11, the first time.
        decay: limit of the decay, in [0, 1).

    Returns:
        Scalar float64: in float32, ``1 - 0.9999`` is wrong in the fourth digit.
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
    """Moves every average towards its source: ``average = decay * average + (1 - decay) * source``.

    Call it outside ``strategy.run``, right after it, in the same ``tf.function``. A copy of the average follows its
    own replica's source; the train step keeps these alike.

    Args:
        strategy: the strategy in whose scope both models were built.
        source: weights of the model in training, float32.
        average: weights of the other model, in the same order.
        decay: scalar in [0, 1), see ``ema_decay_at``.

    Raises:
        ValueError: if the two lists are not the weights of the same architecture.
    """
    _check_same_architecture(source, average)
    rate = tf.cast(1.0 - decay, tf.float32)
    for new, old in zip(source, average):
        strategy.extended.update(old, _move, args=(new, rate), group=False)


def _move(average: tf.Variable, value: tf.Variable, rate: tf.Tensor) -> None:
    """``average -= rate * (average - value)``, in one pass over the average."""
    tf.raw_ops.ResourceApplyGradientDescent(var=average.handle, alpha=rate, delta=average - value)


def _check_same_architecture(source: Sequence[tf.Variable], average: Sequence[tf.Variable]) -> None:
    advice = "build the averaging model exactly as the trained one and pass all weights of both, in order."
    if len(source) != len(average):
        raise ValueError(f"The model has {len(source)} weights but its average has {len(average)}; {advice}")
    for new, old in zip(source, average):
        if (new.name, new.shape) != (old.name, old.shape) or new.dtype != tf.float32 or old.dtype != tf.float32:
            raise ValueError(
                f"Cannot average {new.name} {tuple(new.shape)} {new.dtype.name} in "
                f"{old.name} {tuple(old.shape)} {old.dtype.name}: names and shapes must be equal and the type float32; "
                f"{advice}"
            )
