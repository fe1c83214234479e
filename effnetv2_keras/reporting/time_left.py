"""Estimates the time left of a run from the steps, evaluations, checkpoints and compilations measured so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from effnetv2_keras.progressive import Stage

EVALUATING, SAVING = "evaluating", "saving a checkpoint"
_NEWEST = 0.3
"""Share of the newest measurement in the step time of a stage."""
_FORWARD = 1 / 3
"""Time of an evaluation of an image divided by the time of a training step, per image of the same size."""


class TimeLeft:
    """Estimates the time left of a run.

    The step time is linear in the area of the images between the stages that were measured or tried, and beyond them.
    It grows at most in proportion to the area. After only one stage it is proportional. If a run waits for its input,
    the later stages take at least as long per step as the present one.

    Args:
        stages: the stage plan.
        batch_size: training images per step.
        evaluation_period: steps between two evaluations.
        checkpoint_period: steps between two checkpoints; one also follows each evaluation and stage.
        evaluated: images of an evaluation, times the number of models.
        eval_size: side of the evaluation images, pixels.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        batch_size: int,
        evaluation_period: Fraction,
        checkpoint_period: int,
        evaluated: int,
        eval_size: int,
    ) -> None:
        self._stages, self._evaluated, self._eval_size = stages, evaluated / batch_size, eval_size
        self._evaluation_period, self._checkpoint_period = evaluation_period, checkpoint_period
        self._computing: dict[float, float] = {}  # seconds of a step without waiting, by ``_side``
        self._tried: dict[float, float] = {}
        self._step, self._least = 0.0, 0.0
        self._stage: Stage | None = None
        self._compiled: set[int] = set()
        self._compiling = 0.0
        self._took: dict[str, float] = {}

    def tried(self, stage: Stage, seconds: float) -> None:
        """Notes the time of one step of a stage that the run has not reached yet, seconds."""
        self._tried[_side(stage)] = seconds

    def trained(self, stage: Stage, seconds: float, *, input_wait: float = 0.0) -> None:
        """Notes a mean time of steps of the present stage.

        Args:
            stage: the stage.
            seconds: time of a step, seconds.
            input_wait: share of the time spent waiting for input, in [0, 1].
        """
        self._step = seconds if stage != self._stage else (1 - _NEWEST) * self._step + _NEWEST * seconds
        self._stage = stage
        self._computing[_side(stage)] = self._step * (1 - input_wait)
        self._tried.pop(_side(stage), None)
        self._least = self._step if input_wait > 0.2 else 0.0

    def compiled(self, stage: Stage, seconds: float) -> None:
        """Notes the time of compiling the step of a stage, seconds."""
        self._compiled.add(stage.index)
        self._compiling = seconds

    def took(self, what: str, seconds: float) -> None:
        """Notes the time of ``SAVING`` or ``EVALUATING``, seconds; anything else does not come again."""
        self._took[what] = seconds

    def seconds(self, step: int) -> float | None:
        """Returns the estimated time left, seconds; None if no step was measured yet.

        Args:
            step: finished steps; what is due after the last of them is still to come.
        """
        if not self._computing and not self._tried:
            return None
        total, left = self._stages[-1].end_step, 0.0
        for stage in self._stages:
            steps = max(0, stage.end_step - max(step, stage.first_step))
            left += steps * (self._step if stage == self._stage else max(self._least, self._cost(_side(stage))))
            if stage.first_step >= step and stage.index not in self._compiled:
                left += self._compiling
        period = self._evaluation_period
        evaluations = math.ceil(total / period) - max(0, int((step - 1) // period))
        ends = sum(stage.end_step >= step and not self._evaluates(stage.end_step) for stage in self._stages)
        saves = evaluations + ends + (total - step) // self._checkpoint_period
        return left + evaluations * self._evaluation() + saves * self._took.get(SAVING, 0.0)

    def _evaluates(self, step: int) -> bool:
        """Returns whether an evaluation, with its checkpoint, follows a step."""
        period = self._evaluation_period
        return step == self._stages[-1].end_step or step // period > (step - 1) // period

    def _evaluation(self) -> float:
        if EVALUATING in self._took:
            return self._took[EVALUATING]
        return self._evaluated * self._cost(self._eval_size) * _FORWARD

    def _cost(self, size: float) -> float:
        """Returns the time of a step with images of this side without waiting for input, seconds."""
        known = sorted({**self._tried, **self._computing}.items())
        base, seconds = min(self._computing.items() or known, key=lambda one: abs(one[0] - size))
        by_area = seconds * (size / base) ** 2
        if len(known) == 1:
            return by_area
        place = min(max(1, sum(side < size for side, _ in known)), len(known) - 1)
        (small, low), (large, high) = known[place - 1], known[place]
        linear = low + (high - low) * (size**2 - small**2) / (large**2 - small**2)
        return min(
            max(linear, min(seconds, by_area)), max(seconds, by_area)
        )  # one step that was tried may be an outlier


def _side(stage: Stage) -> float:
    """Returns the side of the images, pixels, with which a step of all layers takes as long as one of the stage."""
    return stage.image_size * (_FORWARD**0.5 if stage.trains == "classifier" else 1.0)
