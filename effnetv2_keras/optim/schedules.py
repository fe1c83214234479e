"""Learning-rate schedules (a decay with a linear warm-up) and the weight-decay schedule of the reference code."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.basics.exact import Number, exact


@tf.keras.utils.register_keras_serializable(package="effnetv2_keras")
class WarmupSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the global step, continuous across the stages of a run.

    During the warm-up the rate is ``peak * step / warmup_steps``, regardless of ``floor``. After the warm-up it is
    ``peak * SCHEDULES[name]``, but at least ``floor``. The decay counts from step 0, not from the end of the warm-up,
    so the exponential schedule may drop where the warm-up ends (reference code, ``WarmupLearningRateSchedule``).

    Attributes:
        name: a key of ``SCHEDULES``.
        peak: learning rate at the end of the warm-up, for the global batch, above 0.
        total_steps: length of the run in whole steps, at least 1. The rate is constant after it; cosine and linear end
            at exactly 0. (One of the two programs of the reference code uses the unrounded length: its rates are higher
            by at most ``pi / 2 / total_steps`` of the peak.)
        warmup_steps: length of the warm-up, steps, at least 0.
        decay_steps: for exponential: steps between two decays, above 0, may be a fraction.
        decay_factor: for exponential: factor of one decay.
        floor: smallest learning rate after the warm-up, for the global batch; 0 for no limit.
        head_steps: steps before all that, in which only the classifier trains; the warm-up and the decay start after
            them and end with the run.
        head_rate: learning rate of these steps, for the global batch.

    Raises:
        ValueError: if the name is unknown.
    """

    def __init__(
        self,
        name: str,
        peak: float,
        total_steps: int,
        warmup_steps: int,
        decay_steps: float,
        decay_factor: float,
        floor: float,
        head_steps: int = 0,
        head_rate: float = 0.0,
    ) -> None:
        if name not in SCHEDULES:
            raise ValueError(f"Unknown learning-rate schedule {name!r}; use one of: {', '.join(SCHEDULES)}.")
        self.name = name
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.decay_factor = decay_factor
        self.floor = floor
        self.head_steps = head_steps
        self.head_rate = head_rate

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """Returns the learning rate of the step that follows ``step`` finished steps.

        Args:
            step: number of finished steps, at least 0: an int, or a scalar of any integer dtype.

        Returns:
            Scalar float32, computed in float64. In float32, ``step / decay_steps`` of a late step can be rounded past
            a whole number, so that the decay happens one step early or late.
        """
        step = tf.cast(step, tf.float64) - self.head_steps
        rate = self.peak * SCHEDULES[self.name](step, self)
        if self.floor:
            rate = tf.maximum(rate, self.floor)
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * step / self.warmup_steps, rate)
        if self.head_steps:
            rate = tf.where(step < 0, tf.cast(self.head_rate, tf.float64), rate)
        return tf.cast(rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments: numbers and one string."""
        return {
            "name": self.name,
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "decay_factor": self.decay_factor,
            "floor": self.floor,
            "head_steps": self.head_steps,
            "head_rate": self.head_rate,
        }


class ScaledSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A schedule multiplied by a variable, which may change during the run.

    Args:
        schedule: any schedule.
        scale: float32 scalar variable, above 0.
    """

    def __init__(self, schedule: tf.keras.optimizers.schedules.LearningRateSchedule, scale: tf.Variable) -> None:
        self._schedule, self._scale = schedule, scale

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """Returns the learning rate of the step that follows ``step`` finished steps, scalar float32."""
        return self._schedule(step) * self._scale


def _exponential(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Returns ``decay_factor ** floor(step / decay_steps)``.

    The factor is rounded to float32 as in the reference code. After a hundred decays this changes the sixth digit.
    """
    factor = tf.cast(tf.constant(schedule.decay_factor, tf.float32), tf.float64)
    return factor ** tf.floor(step / schedule.decay_steps)


def _cosine(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Returns half a cosine, from 1 to 0."""
    return 0.5 * (1.0 + tf.cos(math.pi * _progress(step, schedule)))


def _linear(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Returns a straight line from 1 to 0."""
    return 1.0 - _progress(step, schedule)


def _constant(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Returns 1."""
    return tf.ones_like(step)


def _progress(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    return tf.minimum(step / (schedule.total_steps - schedule.head_steps), 1.0)


SCHEDULES: dict[str, Callable[[tf.Tensor, WarmupSchedule], tf.Tensor]] = {
    "exponential": _exponential,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}
"""Fraction of the peak learning rate for each schedule: ``(step, schedule) -> fraction``, scalar float64."""


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Weight decay that grows linearly with the steps (reference code, ``train.weight_decay_inc``).

    Attributes:
        start: weight decay of the first step, at least 0.
        increase: growth over the whole run, as a fraction of ``start``, at least -1; 0 for constant weight decay.
        total_steps: length of the run, steps, at least 1.
    """

    start: float
    increase: float = 0.0
    total_steps: int = 1

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """Returns ``start * (1 + increase * step / total_steps)`` after ``step`` finished steps, float32 scalar."""
        progress = tf.cast(step, tf.float64) / self.total_steps
        return tf.cast(self.start * (1.0 + self.increase * progress), tf.float32)


def make_schedule(
    name: str,
    *,
    peak: float,
    total_steps: int,
    steps_per_epoch: Number,
    warmup_epochs: float,
    decay_epochs: float,
    decay_factor: float,
    floor: float,
    head_steps: int = 0,
    head_rate: float = 0.0,
) -> WarmupSchedule:
    """Returns a schedule from settings in epochs.

    Args:
        name: a key of ``SCHEDULES``.
        peak: learning rate at the end of the warm-up, for the global batch (``lr_base * batch_size / 256``).
        total_steps: length of the run, steps.
        steps_per_epoch: training images / batch size, not rounded.
        warmup_epochs: length of the warm-up, epochs; rounded down to whole steps.
        decay_epochs: for exponential: epochs between two decays.
        decay_factor: for exponential: factor of one decay.
        floor: smallest learning rate after the warm-up, for the global batch; 0 for no limit.
        head_steps: steps at the start that train only the classifier; the warm-up comes after them.
        head_rate: learning rate of these steps, for the global batch.

    Raises:
        ValueError: if the name is unknown, or the run or an epoch has no steps.
    """
    if total_steps < 1 or steps_per_epoch <= 0:
        raise ValueError(
            f"total_steps is {total_steps} and steps_per_epoch is {steps_per_epoch}, but both must be positive. "
            "Train on more images or for more epochs."
        )
    return WarmupSchedule(
        name,
        peak=peak,
        total_steps=total_steps,
        warmup_steps=int(exact(warmup_epochs) * exact(steps_per_epoch)),
        decay_steps=float(exact(decay_epochs) * exact(steps_per_epoch)),
        decay_factor=decay_factor,
        floor=floor,
        head_steps=head_steps,
        head_rate=head_rate,
    )
