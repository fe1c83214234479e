"""The training loop: for each stage that is left, rebuild the input, make the step, iterate, save, evaluate."""

from __future__ import annotations

import math
import os
from typing import Any

import rich.console
import tensorflow as tf

from effnetv2_keras import plots, specs
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan, eval_input, train_input
from effnetv2_keras.data.service import next_batch
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import Interrupted, TrainingDiverged
from effnetv2_keras.headline import headline_of_best
from effnetv2_keras.progressive import Stage, remaining
from effnetv2_keras.training.checkpoints import Checkpoints
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.interruption import stop_on_signal
from effnetv2_keras.training.progress import Progress, Stopwatch
from effnetv2_keras.training.report import describe_evaluation, stage_report
from effnetv2_keras.training.run_folder import RunFolder
from effnetv2_keras.training.state import create_state, initialize
from effnetv2_keras.training.steps import Metrics, TrainStep
from effnetv2_keras.training.strategy import make_strategy
from effnetv2_keras.training.summaries import MetricsLog


def train(
    config: Config,
    model_dir: str | os.PathLike[str],
    *,
    strategy: tf.distribute.Strategy | None = None,
    splits: Splits | None = None,
    spec: specs.ModelSpec | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Trains a network, or goes on with the run in ``model_dir`` from its newest checkpoint.

    Args:
        config: the run.
        model_dir: its folder, created if missing.
        strategy: devices; None takes what ``make_strategy("auto")`` finds.
        splits: the data; None opens what ``config.data`` names.
        spec: a network other than the one that ``config.model.model_name`` names.
        console: where progress is drawn; None is standard output.

    Returns:
        The last evaluation's row, as in ``metrics.jsonl``.

    Raises:
        ConfigError, DataError, RunFolderError, WeightsError: for settings, data, a folder or initial weights that
            cannot be used.
        TrainingDiverged: if the loss becomes NaN or infinite; the last good checkpoint stays.
        Interrupted: if a signal asked the run to end; its state was saved first.
    """
    strategy = strategy or make_strategy()
    run = _Run(config, RunFolder(model_dir), strategy, splits or open_splits(config.data), spec, console)
    with run.progress.shown(), stop_on_signal() as stop:
        for stage, steps in remaining(run.stages, step=run.first_step):
            train_step = TrainStep(run.state, strategy, config=config, stage=stage)
            batches = run.batches(stage, steps.start)
            for step in steps:
                run.record(stage, step, train_step(run.next(batches)))
                if stop:
                    saved = run.save()
                    raise Interrupted(f"{stop.signal_name}: saved {saved}. The same command goes on from there.")
                if run.evaluation_due(step + 1):
                    run.evaluate(stage)
                elif step + 1 == stage.end_step or (step + 1) % config.runtime.checkpoint_every == 0:
                    run.save()
    return run.finish()


class _Run:
    """The parts of a run and what is done with them between two steps."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        strategy: tf.distribute.Strategy,
        splits: Splits,
        spec: specs.ModelSpec | None,
        console: rich.console.Console | None,
    ) -> None:
        num_train = splits.train.num_examples
        total_steps = config.total_steps(num_train)
        self.stages = config.progressive.plan(total_steps)
        folder.check(config, splits)
        self._config, self._folder, self._strategy, self._splits = config, folder, strategy, splits
        self._steps_per_epoch = num_train / config.train.batch_size
        self._unreadable = UnreadableImages(config.data.unreadable)
        spec = spec or config.spec
        self._normalization = None if config.model.include_preprocessing else spec.normalization
        self.state = create_state(
            config,
            strategy,
            num_classes=len(splits.train.class_names),
            steps_per_epoch=self._steps_per_epoch,
            total_steps=total_steps,
            spec=spec,
        )
        self._checkpoints = Checkpoints(self.state, folder, keep=config.runtime.keep_checkpoint_max)
        initialized = None if self._checkpoints.latest else initialize(self.state, config.train)
        folder.claim(config, splits)  # not before: initial weights that do not fit leave the folder free
        self.first_step = self._checkpoints.restore_latest()
        self._log = MetricsLog(folder, step=self.first_step, tensorboard=config.runtime.tensorboard)
        self.progress = Progress(self.stages, console or rich.console.Console())
        if initialized:
            self.progress.say(initialized.describe())
        self._watch = Stopwatch(self._log.seconds)
        self._evaluator = Evaluator(
            self.state.models,
            strategy,
            input_fn=eval_input(
                splits.evaluation, self._input_plan(config.eval.batch_size), image_size=config.eval_size
            ),
            num_examples=splits.evaluation.num_examples,
            batch_size=config.eval.batch_size,
            loss_type=config.train.loss_type,
        )
        self._pending: list[Metrics] = []
        self._timed_from, self._timed_steps = self._watch.seconds, 0

    def _input_plan(self, batch_size: int) -> InputPlan:
        return InputPlan(self._config.data, batch_size, self._normalization, self._unreadable)

    def batches(self, stage: Stage, first_step: int) -> Any:
        """The stage's batches from ``first_step`` on."""
        self.progress.advance(stage, first_step)
        plan = self._input_plan(self._config.train.batch_size)
        input_fn = train_input(
            self._splits.train, plan, stage=stage, seed=self._config.train.seed, first_step=first_step
        )
        return iter(self._strategy.distribute_datasets_from_function(input_fn))

    def next(self, batches: Any) -> Any:
        """The next batch."""
        services = self._config.data.service
        with self._unreadable.explained(self._splits.train, services):
            return next_batch(batches, services)

    def record(self, stage: Stage, step: int, metrics: Metrics) -> None:
        """Notes the figures of one step, and writes a row every ``log_every`` steps."""
        self._pending.append(metrics)
        if step == max(stage.first_step, self.first_step):  # its time was spent on tracing
            self._timed_from, self._timed_steps = self._watch.seconds, 0
        else:
            self._timed_steps += 1
        self.progress.advance(stage, step + 1)
        if (step + 1) % self._config.runtime.log_every == 0 or step + 1 == stage.end_step:
            self._flush(stage, step + 1)

    def _flush(self, stage: Stage, finished: int) -> None:
        """Writes the mean of the figures since the last row, after making sure that the loss is a number."""
        if not self._pending:
            return
        first = finished - len(self._pending)
        means: dict[str, float] = {}
        for offset, metrics in enumerate(self._pending):
            if not math.isfinite(float(metrics["loss"])):
                self._diverged(stage, first + offset, float(metrics["loss"]))
            for name, value in metrics.items():
                means[name] = means.get(name, 0.0) + float(value) / len(self._pending)
        seconds = self._watch.seconds
        per_step = (seconds - self._timed_from) / max(self._timed_steps, 1)
        row = {
            **self._row_head("train", stage, finished),
            **means,
            "lr": float(self.state.schedule(finished - 1)),
            "images_per_second": self._config.train.batch_size / max(per_step, 1e-9) if self._timed_steps else 0.0,
        }
        self._log.add(row)
        self.progress.train_row(stage, row, per_step)
        self._pending.clear()
        self._timed_from, self._timed_steps = seconds, 0

    def _row_head(self, kind: str, stage: Stage, finished: int) -> dict[str, Any]:
        return {
            "kind": kind,
            "step": finished,
            "epoch": round(finished / self._steps_per_epoch, 4),
            "stage": stage.index,
            "image_size": stage.image_size,
            "seconds": round(self._watch.seconds, 3),
        }

    def _diverged(self, stage: Stage, step: int, loss: float) -> None:
        raise TrainingDiverged(
            f"The loss is {loss} at step {step + 1} (stage {stage.index + 1} of {len(self.stages)}, {stage.image_size} "
            f"px, learning rate {float(self.state.schedule(step)):.4g}). The last good checkpoint is "
            f"{self._checkpoints.latest or 'none yet'}. Lower train.lr_base, lengthen train.lr_warmup_epoch, set "
            "train.gclip, or use precision.policy=float32, in a new --model_dir."
        )

    def evaluation_due(self, finished: int) -> bool:
        """Whether an evaluation follows step number ``finished``: every so many epochs, and at the end."""
        period = self._config.eval.every_epochs * self._steps_per_epoch
        return finished == self.stages[-1].end_step or int(finished / period) > int((finished - 1) / period)

    def save(self) -> str:
        """Saves a checkpoint of a state that is known to be good."""
        step = self.state.finished_steps
        self._flush(next(stage for stage in self.stages if step <= stage.end_step), step)
        with self._watch.paused():
            return self._checkpoints.save()

    def evaluate(self, stage: Stage) -> None:
        """Evaluates, notes the figures, and saves."""
        step = self.state.finished_steps
        self._flush(stage, step)
        row = self._row_head("eval", stage, step)
        with self._watch.paused():
            with self._unreadable.explained(self._splits.evaluation):
                row.update(self._evaluator.run(self.progress.evaluating))
            self._log.add(row)
            self._checkpoints.save()
            metric = headline_of_best(row)
            is_best = self._checkpoints.save_if_best(row[metric], metric)
        self.progress.say(describe_evaluation(row, self._splits.evaluation.num_examples, is_best=is_best))

    def finish(self) -> dict[str, Any]:
        """Draws the plot and prints the table of stages; returns the last evaluation."""
        plots.plot_training(self._log.rows, self.stages, self._folder / "training.png")
        self.progress.print_table(stage_report(self.stages, self._log.rows))
        return self._log.last_evaluation()
