"""What a run notes of itself: rows of figures, progress, time and memory, and the report at its end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable

import numpy as np
import numpy.typing as npt
import rich.console
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.distribution.strategy import worker_of
from effnetv2_keras.errors import TrainingDiverged
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.html_report import write_report
from effnetv2_keras.reporting.metrics_log import MetricsLog
from effnetv2_keras.reporting.primary_metric import ema_gap
from effnetv2_keras.reporting.progress import Progress, Stopwatch
from effnetv2_keras.reporting.samples import Samples
from effnetv2_keras.reporting.tables import describe_evaluation, stage_report
from effnetv2_keras.reporting.timing import StepClock
from effnetv2_keras.reporting.trackers import Trackers
from effnetv2_keras.runs.provenance import note_provenance
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError

Metrics = Mapping[str, tf.Tensor]
"""Figures of one step, or of several in a row: scalars or ``[steps]``, by name."""

_MOST_SKIPPED = 20


def _finite_mean(values: npt.NDArray[np.float32]) -> float:
    """The mean of those that are finite, 0 if none is; the others are gradients that loss scaling skipped."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else 0.0


class Recorder:
    """Keeps the log of a run; call ``go_on_from`` before anything else.

    Args:
        config: of the run.
        folder: its folder, written to by the first of several workers only.
        stages: its plan.
        strategy: where it runs.
        steps_per_epoch: training images over batch size.
        lr: learning rate of the step that follows so many finished ones.
        console: where progress is drawn.

    Attributes:
        log: the rows so far.
        progress: what a person sees.
        clock: splits the time of training.
    """

    log: MetricsLog

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        stages: Sequence[Stage],
        strategy: tf.distribute.Strategy,
        *,
        steps_per_epoch: float,
        lr: Callable[[int], tf.Tensor],
        console: rich.console.Console,
    ) -> None:
        self._config, self._folder, self._stages = config, folder, stages
        self._steps_per_epoch, self._lr = steps_per_epoch, lr
        self._writes = worker_of(strategy).is_chief
        if self._writes:
            note_provenance(folder, strategy)
        self._trackers = Trackers(config.runtime.trackers if self._writes else (), folder, config)
        self.progress = Progress(stages, console)
        self._watch = Stopwatch(0.0)
        self.clock = StepClock(lambda: self._watch.seconds, devices=strategy.extended.worker_devices)
        self._pending: list[tuple[int, Metrics]] = []
        self._first_of_stage = -1
        self._timed_from, self._timed_steps = 0.0, 0

    def go_on_from(self, step: int) -> None:
        """Drops the rows of the steps after ``step``, which the run is about to take again."""
        tensorboard = self._config.runtime.tensorboard and self._writes
        self.log = MetricsLog(
            self._folder, step=step, tensorboard=tensorboard, write=self._writes, trackers=self._trackers
        )
        self._pending.clear()
        self._watch = Stopwatch(self.log.seconds)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows progress while the context lasts; at its end the trackers are told so."""
        with self._trackers, self.progress.shown():
            yield

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what happens in the context out of the time of training."""
        with self._watch.paused():
            yield

    def enter(self, stage: Stage, step: int) -> None:
        """Notes that a stage begins, or is gone on with, after ``step`` finished steps."""
        self._first_of_stage = step
        self.progress.advance(stage, step)

    def is_first(self, step: int) -> bool:
        """Whether the step after ``step`` finished ones is the first since ``enter``, which traces."""
        return step == self._first_of_stage

    def show(self, stage: Stage, step: int, pixels: Callable[[], npt.NDArray[Any]]) -> None:
        """Draws a batch for TensorBoard, if that is on: what the network is shown in this stage.

        Args:
            stage: the stage.
            step: finished steps.
            pixels: gives the images, ``[N, S, S, 3]`` of values 0..255.
        """
        if self._config.runtime.tensorboard and self._writes:
            with self._watch.paused():
                self.log.add_sheet(pixels(), plots.stage_title(stage, self._config.data.augment), step=step)

    def record(self, stage: Stage, step: int, count: int, metrics: Metrics) -> None:
        """Notes the figures of ``count`` steps after ``step`` finished ones; writes a row every ``log_every`` steps.

        Raises:
            TrainingDiverged: as ``flush`` does.
        """
        self._pending.append((step, metrics))
        if self.is_first(step):  # its time was spent on tracing
            self._timed_from, self._timed_steps = self._watch.seconds, 0
        else:
            self._timed_steps += count
        self.progress.advance(stage, step + count)
        if (step + count) % self._config.runtime.log_every == 0 or step + count == stage.end_step:
            self.flush(stage)

    def flush(self, stage: Stage) -> None:
        """Writes the means of the figures since the last row, after making sure that they are finite.

        Raises:
            TrainingDiverged: if a loss or gradient is not.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        first = pending[0][0]
        figures = {
            name: np.concatenate([np.atleast_1d(metrics[name].numpy()) for _, metrics in pending])
            for name in pending[0][1]
            if name != "stops"
        }
        self._check(stage, first, figures)
        seconds = self._watch.seconds
        per_step = (seconds - self._timed_from) / max(self._timed_steps, 1)
        finished = first + len(figures["loss"])
        row = {
            **self._head("train", stage, finished),
            **{name: _finite_mean(values) for name, values in figures.items()},
            "lr": float(self._lr(finished - 1)),
            "images_per_second": self._config.train.batch_size / max(per_step, 1e-9) if self._timed_steps else 0.0,
            **self.clock.row(),
        }
        if self._config.runtime.steps_per_loop > 1:
            del row["input_wait"]  # the devices wait, and nobody sees it
        self.log.add(row)
        self.progress.train_row(stage, row, per_step)
        self._timed_from, self._timed_steps = seconds, 0

    def _check(self, stage: Stage, first: int, figures: dict[str, npt.NDArray[np.float32]]) -> None:
        scaled = self._config.precision.policy == "mixed_float16"  # then a step whose gradient overflows is skipped
        norms = figures["gradient_norm"]
        for number, (loss, norm) in enumerate(zip(figures["loss"], norms)):
            if not math.isfinite(loss):
                self.diverged(stage, first + number, f"The loss is {loss}")
            if not math.isfinite(norm) and not scaled:
                self.diverged(stage, first + number, f"The norm of the gradient is {norm}")
        if len(norms) >= _MOST_SKIPPED and not np.isfinite(norms).any():
            self.diverged(stage, first + len(norms) - 1, f"The last {len(norms)} gradients were not finite, the newest")

    def diverged(self, stage: Stage, step: int, what: str) -> None:
        """Ends the run, or its way since the last checkpoint.

        Raises:
            TrainingDiverged: saying ``what`` happened in the step after ``step`` finished ones.
        """
        raise TrainingDiverged(
            f"{what} at step {step + 1} (stage {stage.index + 1} of {len(self._stages)}, {stage.image_size} px, "
            f"learning rate {float(self._lr(step)):.4g})."
        )

    def _head(self, kind: str, stage: Stage, finished: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "step": finished,
            "epoch": round(finished / self._steps_per_epoch, 4),
            "stage": stage.index,
            "image_size": stage.image_size,
            "seconds": round(self._watch.seconds, 3),
        }

    def rolled_back(self, stage: Stage, step: int, lr_scale: float) -> None:
        """Notes that the run went back to ``step``, and by what the learning rate is multiplied from now on."""
        self.log.add({**self._head("rollback", stage, step), "lr_scale": lr_scale})

    def evaluated(self, stage: Stage, step: int, figures: dict[str, Any], num_examples: int, *, is_best: bool) -> None:
        """Notes an evaluation, of ``Evaluator``, after ``step`` finished steps."""
        row = {**self._head("eval", stage, step), **figures, **ema_gap(figures)}
        self.log.add(row)
        self.progress.say(describe_evaluation(row, num_examples, is_best=is_best))

    def finish(self, samples: Samples) -> None:
        """Draws the plot, writes the report and prints the table of stages."""
        try:
            plots.plot_training(self.log.rows, self._stages, self._folder / "training.png")
            self.progress.say(f"Wrote {write_report(self._folder, samples)}.")
        except (OSError, RunFolderError) as error:  # the run is whole without them
            self.progress.say(f"Cannot write the report: {error}. Try again with --mode=report.")
        self.progress.print_table(stage_report(self._stages, self.log.rows))
