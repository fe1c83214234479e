"""The recorder of a run: metrics, progress, time and memory during training, and the report at the end."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Callable

import numpy as np
import numpy.typing as npt
import rich.console
import tensorflow as tf

from effnetv2_keras.basics.activity import Activity, doing
from effnetv2_keras.config import Config
from effnetv2_keras.distribution.strategy import worker_of
from effnetv2_keras.errors import TrainingDiverged
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.evaluations import evaluation_of, note_evaluation
from effnetv2_keras.reporting.html_report import write_report
from effnetv2_keras.reporting.metrics_log import MetricsLog
from effnetv2_keras.reporting.primary_metric import ema_gap
from effnetv2_keras.reporting.progress import Progress, Stopwatch
from effnetv2_keras.reporting.samples import Samples
from effnetv2_keras.reporting.tables import describe_evaluation, stage_report
from effnetv2_keras.reporting.time_left import TimeLeft
from effnetv2_keras.reporting.timing import StepClock
from effnetv2_keras.reporting.trackers import Trackers
from effnetv2_keras.runs.run_folder import RunFolder

Metrics = Mapping[str, tf.Tensor]
"""Metrics of one step (scalars) or several consecutive steps (``[steps]``), by name."""

_MOST_SKIPPED = 20
"""Number of consecutive steps that loss scaling may skip; each one halves the scale."""


def _finite_mean(values: npt.NDArray[np.float32]) -> float | None:
    """Returns the mean of the finite values, None if there are none. Loss scaling skips the steps of the others."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else None


class Recorder:
    """Records the metrics of a run and shows its progress. Call ``go_on_from`` before anything else.

    Args:
        config: configuration of the run.
        folder: folder of the run; with several workers, only the first writes to it.
        stages: stages of the run.
        strategy: distribution strategy of the run.
        steps_per_epoch: training images divided by the batch size, not rounded.
        num_eval: number of evaluation images, for the time left.
        lr: returns the learning rate of the step that follows the given number of finished steps.
        console: output for progress.

    Attributes:
        log: the rows so far.
        progress: the progress bar or lines.
        clock: measures compilation, waiting for input, and memory.
        time_left: estimates the time left.
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
        num_eval: int = 0,
        lr: Callable[[int], tf.Tensor],
        console: rich.console.Console,
    ) -> None:
        self._config, self._folder, self._stages = config, folder, stages
        self._steps_per_epoch, self._lr = steps_per_epoch, lr
        self._writes = worker_of(strategy).is_chief
        self._trackers = Trackers(config.runtime.trackers if self._writes else (), folder, config)
        self.progress = Progress(stages, console)
        self._watch = Stopwatch(0.0)
        self.time_left = TimeLeft(
            stages,
            batch_size=config.train.batch_size,
            evaluation_period=config.eval.period(
                steps_per_epoch=Fraction(steps_per_epoch), total_steps=stages[-1].end_step
            ),
            checkpoint_period=config.runtime.checkpoint_every,
            evaluated=num_eval * (2 if config.train.ema_decay else 1),
            eval_size=config.eval_size,
        )
        self.clock = StepClock(lambda: self._watch.seconds, devices=strategy.extended.worker_devices)
        self._pending: list[tuple[int, Metrics]] = []
        self._first_of_stage = -1
        self._timed_from, self._timed_steps = 0.0, 0
        self._skipped = 0  # steps in a row, up to the last one

    def go_on_from(self, step: int) -> None:
        """Starts the log after ``step`` finished steps, without the rows of later steps, which the run repeats."""
        tensorboard = self._config.runtime.tensorboard and self._writes
        self.log = MetricsLog(
            self._folder, step=step, tensorboard=tensorboard, write=self._writes, trackers=self._trackers
        )
        self._pending.clear()
        self._skipped = 0
        self._watch = Stopwatch(self.log.seconds, self.log.processor_seconds)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows progress inside a ``with`` block, at whose end the trackers are closed."""
        with self._trackers, self.progress.shown():
            yield

    @contextlib.contextmanager
    def paused(self, doing_what: str) -> Iterator[Activity]:
        """Excludes the time of a ``with`` block from the training time, says what it does, and notes what it takes."""
        start = time.monotonic()
        with self._watch.paused(), doing(doing_what) as activity:
            yield activity
        self.time_left.took(doing_what, time.monotonic() - start)

    def enter(self, stage: Stage, step: int) -> None:
        """Records that a stage starts or resumes after ``step`` finished steps."""
        self._first_of_stage = step
        self.progress.advance(stage, step)

    def is_first(self, step: int) -> bool:
        """Returns whether the step after ``step`` finished steps is the first since ``enter``, which traces."""
        return step == self._first_of_stage

    def show(self, stage: Stage, step: int, pixels: Callable[[], npt.NDArray[Any]]) -> None:
        """Writes a sheet of training images of the stage to TensorBoard, if ``runtime.tensorboard`` is true.

        Args:
            stage: the stage.
            step: number of finished steps.
            pixels: returns the images, ``[N, S, S, 3]``, pixels in 0..255.
        """
        if self._config.runtime.tensorboard and self._writes:
            with self._watch.paused():
                self.log.add_sheet(pixels(), plots.stage_title(stage, self._config.data.augment), step=step)

    def record(self, stage: Stage, step: int, count: int, metrics: Metrics) -> None:
        """Records ``count`` steps after ``step`` finished steps, and writes a row every ``runtime.log_every`` steps.

        Raises:
            TrainingDiverged: as ``flush`` does.
        """
        self._pending.append((step, metrics))
        if self.is_first(step):  # most of its time is tracing
            self._timed_from, self._timed_steps = self._watch.seconds, 0
        else:
            self._timed_steps += count
        self.progress.advance(stage, step + count)
        if (step + count) % self._config.runtime.log_every == 0 or step + count == stage.end_step:
            self.flush(stage)

    def flush(self, stage: Stage) -> None:
        """Writes a row with the means of the metrics since the last row.

        Raises:
            TrainingDiverged: if a loss or gradient is not finite.
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
            **{name: mean for name, values in figures.items() if (mean := _finite_mean(values)) is not None},
            **self._skips(figures["gradient_norm"]),
            "lr": float(self._lr(finished - 1)),
            "images_per_second": self._config.train.batch_size / max(per_step, 1e-9) if self._timed_steps else 0.0,
            **self.clock.row(),
        }
        if self._config.runtime.steps_per_loop > 1:
            del row["input_wait"]  # the host cannot measure it inside a loop on the device
        self.log.add(row)
        if row["compile_seconds"]:
            self.time_left.compiled(stage, row["compile_seconds"])
        if self._timed_steps:
            self.time_left.trained(stage, per_step, input_wait=row.get("input_wait", 0.0))
        self.progress.train_row(stage, row, self.time_left.seconds(finished))
        self._check_any_applied(stage, finished)
        self._timed_from, self._timed_steps = seconds, 0

    def _check(self, stage: Stage, first: int, figures: dict[str, npt.NDArray[np.float32]]) -> None:
        norms = figures["gradient_norm"]
        for number, (loss, norm) in enumerate(zip(figures["loss"], norms)):
            if not math.isfinite(loss):
                self.diverged(stage, first + number, f"The loss is {loss}")
            if not math.isfinite(norm) and not self._scaled:
                self.diverged(stage, first + number, f"The norm of the gradient is {norm}")
            self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if self._skipped >= _MOST_SKIPPED:
            self.diverged(
                stage, first + len(norms) - 1, f"The last {self._skipped} gradients were not finite, the newest"
            )

    @property
    def _scaled(self) -> bool:
        """Whether loss scaling skips steps whose gradient overflows."""
        return self._config.precision.policy == "mixed_float16"

    def _skips(self, norms: npt.NDArray[np.float32]) -> dict[str, int]:
        """Returns the number of steps that loss scaling skipped, for a row; nothing without loss scaling."""
        return {"skipped_steps": int(np.sum(~np.isfinite(norms)))} if self._scaled else {}

    def _check_any_applied(self, stage: Stage, finished: int) -> None:
        """Raises ``TrainingDiverged`` at the end of a run in which loss scaling skipped every step."""
        skipped = sum(row.get("skipped_steps", 0) for row in self.log.rows)
        if finished == self._stages[-1].end_step == skipped:
            self.diverged(stage, finished - 1, f"All {skipped} gradients overflowed and no weight changed, the newest")

    def diverged(self, stage: Stage, step: int, what: str) -> None:
        """Raises the error for a run that diverged.

        Args:
            stage: current stage.
            step: number of finished steps before the step that diverged.
            what: what happened, the start of the message.

        Raises:
            TrainingDiverged: always.
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
            "processor_seconds": round(self._watch.processor_seconds, 3),
        }

    def rolled_back(self, stage: Stage, step: int, lr_scale: float) -> None:
        """Records a rollback to ``step``, and the factor of the learning rate for the rest of the run."""
        self.log.add({**self._head("rollback", stage, step), "lr_scale": lr_scale})

    def evaluated(self, stage: Stage, step: int, figures: dict[str, Any], num_examples: int, *, is_best: bool) -> None:
        """Records the metrics of ``Evaluator`` after ``step`` finished steps; of each class, those of the best."""
        numbers = {name: value for name, value in figures.items() if not isinstance(value, np.ndarray)}
        row = {**self._head("eval", stage, step), **numbers, **ema_gap(figures, self._config.eval.best_metric)}
        if is_best and self._writes:
            size = self._config.eval_size
            note_evaluation(
                self._folder, evaluation_of(self._config, figures, num_examples, step=step, image_size=size)
            )
        self.log.add(row)
        chosen = self._config.eval.best_metric
        self.progress.say(describe_evaluation(row, num_examples, is_best=is_best, chosen=chosen))

    def finish(self, samples: Samples) -> None:
        """Writes ``training.png`` and ``report.html``, and prints the table of stages."""
        try:
            plots.try_to_draw(plots.plot_training, self.log.rows, self._stages, self._folder / "training.png")
            self.progress.say(f"Wrote {write_report(self._folder, samples)}.")
        except Exception as error:  # the report is optional, and it draws too
            self.progress.say(f"Cannot write the report: {error}. Try again with --mode=report.")
        self.progress.print_table(stage_report(self._stages, self.log.rows))
