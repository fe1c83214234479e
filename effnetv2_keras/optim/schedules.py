"""Schedules of the reference code: learning rate (a decay from step 0, under a linear warm-up) and weight decay."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="effnetv2_keras")
class WarmupSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the global step, continuous across the stages of a run.

    Below ``warmup_steps`` it is ``peak * step / warmup_steps``, whatever the floor. From there on it is
    ``peak * SCHEDULES[name]``, at least ``floor``. The decay counts from step 0, not from the end of the warm-up,
    so the exponential schedule may drop where the warm-up ends (reference code, ``WarmupLearningRateSchedule``).

    Attributes:
        name: a key of ``SCHEDULES``.
        peak: learning rate at the end of the warm-up, for the whole batch, above 0.
        total_steps: length of the run, at least 1; the rate stays put after it. It is in whole steps, so that cosine
            and linear end at 0. (One of the reference code's two programs divides by the length before rounding: its
            rates are higher by at most ``pi / 2 / total_steps`` of the peak.)
        warmup_steps: length of the warm-up, at least 0.
        decay_steps: exponential: steps between two decays, above 0, may be a fraction.
        decay_factor: exponential: factor of one decay.
        floor: smallest learning rate after the warm-up, for the whole batch; 0 for none.
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

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """Learning rate of the step that follows ``step`` finished steps.

        Args:
            step: finished steps, a whole number of at least 0: an int, or a scalar of any integer type.

        Returns:
            Scalar float32. It is computed in float64: in float32 the ratio of a late step to ``decay_steps`` can
            fall on the wrong side of a whole number and decay one step early or late.
        """
        step = tf.cast(step, tf.float64)
        rate = self.peak * SCHEDULES[self.name](step, self)
        if self.floor:
            rate = tf.maximum(rate, self.floor)
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * step / self.warmup_steps, rate)
        return tf.cast(rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, plain numbers and one string."""
        return {
            "name": self.name,
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "decay_factor": self.decay_factor,
            "floor": self.floor,
        }


class ScaledSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a number that may change during the run.

    Args:
        schedule: any schedule.
        scale: float32 scalar variable, above 0.
    """

    def __init__(self, schedule: tf.keras.optimizers.schedules.LearningRateSchedule, scale: tf.Variable) -> None:
        self._schedule, self._scale = schedule, scale

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """Learning rate of the step that follows ``step`` finished steps, scalar float32."""
        return self._schedule(step) * self._scale


def _exponential(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Staircase: one factor for every whole ``decay_steps``.

    The factor is rounded to float32, as in the reference code: after a hundred decays that shows in the sixth digit.
    """
    factor = tf.cast(tf.constant(schedule.decay_factor, tf.float32), tf.float64)
    return factor ** tf.floor(step / schedule.decay_steps)


def _cosine(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Half a cosine, from 1 to 0."""
    return 0.5 * (1.0 + tf.cos(math.pi * _progress(step, schedule)))


def _linear(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """A straight line from 1 to 0."""
    return 1.0 - _progress(step, schedule)


def _constant(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    """Always 1."""
    return tf.ones_like(step)


def _progress(step: tf.Tensor, schedule: WarmupSchedule) -> tf.Tensor:
    return tf.minimum(step / schedule.total_steps, 1.0)


SCHEDULES: dict[str, Callable[[tf.Tensor, WarmupSchedule], tf.Tensor]] = {
    "exponential": _exponential,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}
"""Share of the peak learning rate, by name: ``(step, schedule) -> share``, scalar float64 in and out."""


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Weight decay that grows in proportion to the finished steps (reference code, ``train.weight_decay_inc``).

    Attributes:
        start: weight decay of the first step, at least 0.
        increase: by which share of ``start`` it grows over the whole run, at least -1; 0 keeps it as it is.
        total_steps: length of the run, at least 1.
    """

    start: float
    increase: float = 0.0
    total_steps: int = 1

    def __call__(self, step: int | tf.Tensor | tf.Variable) -> tf.Tensor:
        """``start * (1 + increase * step / total_steps)`` after ``step`` finished steps, a float32 scalar."""
        progress = tf.cast(step, tf.float64) / self.total_steps
        return tf.cast(self.start * (1.0 + self.increase * progress), tf.float32)


def make_schedule(
    name: str,
    *,
    peak: float,
    total_steps: int,
    steps_per_epoch: float,
    warmup_epochs: float,
    decay_epochs: float,
    decay_factor: float,
    floor: float,
) -> WarmupSchedule:
    """Makes a schedule from settings in epochs.

    Args:
        name: a key of ``SCHEDULES``.
        peak: learning rate at the end of the warm-up, for the whole batch (``lr_base * batch_size / 256``).
        total_steps: length of the run.
        steps_per_epoch: training images over batch size, not rounded.
        warmup_epochs: length of the warm-up, epochs; rounded down to whole steps.
        decay_epochs: exponential: epochs between two decays.
        decay_factor: exponential: factor of one decay.
        floor: smallest learning rate after the warm-up, for the whole batch; 0 for none.

    Raises:
        ValueError: for an unknown name, or a run or an epoch of no steps.
    """
    if total_steps < 1 or steps_per_epoch <= 0:
        raise ValueError(
            f"total_steps is {total_steps} and steps_per_epoch is {steps_per_epoch}; "
            "both must be positive: train on more images or for more epochs."
        )
    return WarmupSchedule(
        name,
        peak=peak,
        total_steps=total_steps,
        warmup_steps=int(warmup_epochs * steps_per_epoch),
        decay_steps=decay_epochs * steps_per_epoch,
        decay_factor=decay_factor,
        floor=floor,
    )
