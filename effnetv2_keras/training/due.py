"""When a run evaluates, saves and logs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from effnetv2_keras.config import RuntimeConfig
from effnetv2_keras.progressive import Stage


class Due:
    """What is due after a step of a run.

    Args:
        runtime: settings of the run.
        stages: stages of the run.
        evaluation_period: steps between two evaluations, which may be a fraction.
    """

    def __init__(self, runtime: RuntimeConfig, stages: Sequence[Stage], evaluation_period: Fraction) -> None:
        self._runtime, self._last = runtime, stages[-1].end_step
        self._evaluation_period = evaluation_period

    def steps_until(self, stage: Stage, step: int) -> int:
        """Returns the number of steps until the host has something to do, at most ``steps_per_loop``."""
        count, most = 1, min(self._runtime.steps_per_loop, stage.end_step - step)
        while count < most and not self._anything(stage, step + count):
            count += 1
        return count

    def _anything(self, stage: Stage, finished: int) -> bool:
        return finished % self._runtime.log_every == 0 or self.evaluation(finished) or self.checkpoint(stage, finished)

    def evaluation(self, finished: int) -> bool:
        """Returns whether an evaluation is due after ``finished`` steps: every ``eval.period``, and at the end."""
        period = self._evaluation_period
        return finished == self._last or finished // period > (finished - 1) // period

    def checkpoint(self, stage: Stage, finished: int) -> bool:
        """Returns whether a checkpoint is due: every ``runtime.checkpoint_every`` steps, and after each stage."""
        return finished == stage.end_step or finished % self._runtime.checkpoint_every == 0
