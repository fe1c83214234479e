"""A run: its state, input, recorder and checkpoints, and the operations of the training loop on them."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.small_copies import describe_reading
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.distribution.strategy import make_agreement, worker_of
from effnetv2_keras.errors import TrainingDiverged
from effnetv2_keras.progressive import Stage, remaining
from effnetv2_keras.reporting.primary_metric import check_best_metric, judged
from effnetv2_keras.reporting.recorder import Recorder
from effnetv2_keras.reporting.samples import samples_of_training
from effnetv2_keras.reporting.time_left import EVALUATING, SAVING
from effnetv2_keras.reporting.trackers import check_libraries
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.provenance import note_provenance
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.due import Due
from effnetv2_keras.training.evaluation import evaluator_of_training
from effnetv2_keras.training.input import RunInput, free_in_background
from effnetv2_keras.training.interruption import StopRequest
from effnetv2_keras.training.preflight import explained_shortage, largest_stage
from effnetv2_keras.training.state import create_state, initialize
from effnetv2_keras.training.steps import Metrics, TrainStep, awaited, reuse


class Run:
    """A new or resumed run in its folder. See ``loop.train`` for arguments and errors."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        strategy: tf.distribute.Strategy,
        splits: Splits,
        console: rich.console.Console,
        class_weights: tuple[float, ...] = (),
    ) -> None:
        check_libraries(config.runtime.trackers)
        check_best_metric(config, several=splits.evaluation.multi_label)
        num_train, num_classes = splits.train.num_examples, len(splits.train.class_names)
        total_steps, per_epoch = config.total_steps(num_train), config.steps_per_epoch(num_train)
        self.stages = config.plan(total_steps)
        self._worker = worker = worker_of(strategy)
        folder.check(config, splits)
        self._config, self._folder, self._strategy, self._splits = config, folder, strategy, splits
        self.due = Due(config.runtime, self.stages, config.evaluation_period(num_train))
        self.state = create_state(
            config, strategy, num_classes=num_classes, steps_per_epoch=per_epoch, total_steps=total_steps
        )
        self._agree = make_agreement(strategy)
        self._checkpoints = Checkpoints(
            self.state, folder, keep=config.runtime.keep_checkpoint_max, is_chief=worker.is_chief, agree=self._agree
        )
        initialized = initialize(self.state, config) if self._checkpoints.is_new() else None
        if worker.is_chief:  # after initialize(), so that an error there leaves the folder unclaimed
            folder.claim(config, splits)
            note_provenance(folder, strategy, describe_reading(splits.train, config))
        self.recorder = Recorder(
            config, folder, self.stages, strategy, steps_per_epoch=float(per_epoch),
            num_eval=splits.evaluation.num_examples, lr=self.state.schedule, console=console,
        )  # fmt: skip
        if initialized:
            self.recorder.progress.say(initialized.describe())
        self._restore()
        self.input = RunInput(config, splits, strategy, class_weights)
        self._evaluator = evaluator_of_training(self.state.models, strategy, config, splits, self.input)
        self._step: Any = None
        self._tried: tuple[TrainStep, float] | None = None
        self._trials: list[Callable[[], object]] = []  # to do after the first step
        self._stops: Any = None
        self._batches: Any = None

    def _restore(self) -> None:
        """Restores the newest good checkpoint, with the log and the learning-rate factor of that step."""
        self.recorder.go_on_from(self._checkpoints.restore_latest())
        self._note_rollbacks()

    def _note_rollbacks(self) -> None:
        """Takes from the log the rollbacks since the restored checkpoint, or all if an earlier version wrote it."""
        log = self.recorder.log
        self.state.note_rollbacks(int(self._agree(log.rollbacks)), self._agree(log.lr_scale))

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows progress and watches the input inside a ``with`` block."""
        with self.recorder.shown(), self.input, contextlib.ExitStack() as stack:
            stack.callback(self._drop_batches)
            yield

    def prepare(self, stop: StopRequest) -> None:
        """Checks what could end the run later, and does the evaluation that an interruption skipped."""
        step = self.state.finished_steps
        left = [(stage, steps.start) for stage, steps in remaining(self.stages, step=step)]
        for stage, _ in left:
            self._make_step(stage)  # raises UsageError if its batches cannot be divided
        if left:
            self._checkpoints.check_room()
        if step == 0:
            self.save()  # a rollback needs it, and it shows that the folder can be written
        if left and self._config.runtime.preflight:
            self._plan_trials(left)
        evaluated = any(row["kind"] == "eval" and row["step"] == step for row in self.recorder.log.rows)
        if step and self.due.evaluation(step) and not self._agree(float(evaluated)):
            self.evaluate(self._stage_at_hand(), stop)

    def _plan_trials(self, left: list[tuple[Stage, int]]) -> None:
        """Tries a step of the largest stage, at once if its trace is that of the first step, else after that step."""
        largest = largest_stage([stage for stage, _ in left], self._config)
        try_largest = functools.partial(self._try_largest, largest, dict(left)[largest])
        if self._make_step(left[0][0]).serves(largest):
            try_largest()
        else:
            self._trials.append(lambda: (self.save(), try_largest()))  # together, or a rollback would undo too much
        self._trials.append(self._try_evaluation)

    def _try_largest(self, largest: Stage, first_step: int) -> None:
        """Tries a step of a stage, and undoes it by the last checkpoint, which must be that of this step."""
        at_hand = self._step
        with self.recorder.paused(f"trying stage {largest.index + 1}/{len(self.stages)} ({largest.image_size} px)"):
            batches = [self.input.for_trial(largest, first_step)]
            try:
                self._try_step(batches[0], largest, first_step)
            except DataError:
                if self._worker.count == 1:  # else the state of the trial would be saved
                    self._checkpoints.restore_latest()
                raise
            finally:
                free_in_background(batches)
            self._checkpoints.restore_latest()
            self._note_rollbacks()
        self._step = at_hand

    def _try_evaluation(self) -> None:
        """Tries an evaluation batch."""
        with self.recorder.paused("trying an evaluation"), self.input.evaluating(), self._explained_shortage():
            self.recorder.time_left.took(EVALUATING, self._evaluator.try_batch())

    def _try_step(self, batches: Any, stage: Stage, first_step: int) -> None:
        self._step, start = self._make_step(stage), time.perf_counter()
        with self._explained_shortage(stage):
            awaited(self._take(batches, stage, first_step, 1, StopRequest()))
            self._tried = (self._step, time.perf_counter() - start)
            for other in filter(self._step.serves, self.stages):
                self.recorder.time_left.compiled(other, self._tried[1])
            if stage.end_step - first_step > 1:  # a second step takes the time of all others
                start = time.perf_counter()
                awaited(self._take(batches, stage, first_step + 1, 1, StopRequest()))
                self.recorder.time_left.tried(stage, time.perf_counter() - start)

    def _explained_shortage(self, stage: Stage | None = None) -> contextlib.AbstractContextManager[None]:
        return explained_shortage(self._config, self._strategy.num_replicas_in_sync, stage)

    def _make_step(self, stage: Stage) -> TrainStep:
        """Returns the step of a stage: one at hand if it serves that stage, because tracing takes seconds."""
        at_hand = reuse((self._step, self._tried and self._tried[0]), stage)
        return at_hand or TrainStep(self.state, self._strategy, config=self._config, stage=stage)

    def enter(self, stage: Stage, step: int) -> None:
        """Makes the input and the train step of a stage, to continue after ``step`` finished steps of the run."""
        self.recorder.enter(stage, step)
        self._drop_batches()
        self._batches = self.input.batches(stage, step)
        self._step = self._make_step(stage)
        if self._tried and self._tried[0] is self._step:
            self.recorder.clock.note_compiling(self._tried[1])
            self._tried = None

    def _drop_batches(self) -> None:
        box, self._batches = [self._batches], None
        free_in_background(box)

    def train(self, stage: Stage, step: int, count: int, stop: StopRequest) -> bool:
        """Takes ``count`` steps after ``step`` finished steps; returns whether the run must end here.

        Raises:
            DataError: if the data cannot be used; the state is saved first, unless there are several workers.
            MemoryShortageError: if the step, or a trial after it, does not fit in memory.
        """
        try:
            with self._explained_shortage(stage):
                metrics = self._take(self._batches, stage, step, count, stop)
            self.recorder.record(stage, step, count, metrics)
            while self._trials:
                self._trials[0]()
                del self._trials[0]
        except DataError as error:
            raise type(error)(f"{error}\n{self._saved_before_an_error()}") from error
        if self._worker.count == 1:
            return bool(stop)
        # The request of the previous steps: reading it does not wait, and all workers read it after the same step.
        heard, self._stops = self._stops, metrics["stops"]
        return heard is not None and float(tf.reduce_max(heard)) > 0

    def _take(self, batches: Any, stage: Stage, step: int, count: int, stop: StopRequest) -> Metrics:
        first = self.recorder.is_first(step)
        if self._config.runtime.steps_per_loop > 1:
            with self.input.explained(), self.recorder.clock.stepping(first=first):
                return awaited(self._step.several(batches, count, bool(stop)), first)
        with self.recorder.clock.waiting(), stop.waiting():
            batch = self.input.next(batches, stage, step)
        if first:
            self.recorder.show(stage, step, lambda: self.input.pixels(batch))
        with self.recorder.clock.stepping(first=first):
            return awaited(self._step(batch, bool(stop)), first)

    def _saved_before_an_error(self) -> str:
        if self._worker.count > 1:  # saving needs all workers
            return f"The last checkpoint is {self._checkpoints.latest}; the same command resumes from it."
        return f"Saved {self.save()}; after the repair, the same command resumes from it."

    def roll_back(self, error: TrainingDiverged) -> None:
        """Restores the last good checkpoint and lowers the learning rate for the rest of the run.

        Raises:
            TrainingDiverged: ``error``, if ``nan_policy`` is ``"stop"`` or ``max_rollbacks`` is reached.
        """
        runtime, done = self._config.runtime, int(self.state.rollbacks.numpy())
        if runtime.nan_policy == "stop" or done >= runtime.max_rollbacks:
            raise TrainingDiverged(
                f"{error} The last good checkpoint is {self._checkpoints.latest}. Resume with a lower learning rate by "
                "runtime.nan_policy=rollback, or start in a new --model_dir with a lower train.lr_base, a longer "
                "train.lr_warmup_epoch, train.gclip, or precision.policy=float32."
            ) from error
        self._drop_batches()
        self._restore()
        self.state.rollbacks.assign(done + 1)
        self.state.lr_scale.assign(runtime.rollback_lr_factor ** (done + 1))
        self.recorder.rolled_back(self._stage_at_hand(), self.state.finished_steps, float(self.state.lr_scale))
        self.recorder.progress.say(
            f"{error} Going back to step {self.state.finished_steps} with {float(self.state.lr_scale):.3g} times the "
            f"learning rate (rollback {done + 1} of at most {runtime.max_rollbacks})."
        )

    def _stage_at_hand(self) -> Stage:
        """Returns the stage of the last finished step."""
        return next(stage for stage in self.stages if self.state.finished_steps <= stage.end_step)

    def save(self) -> str:
        """Saves a checkpoint after a check that the state is finite; returns its path."""
        stage, step = self._stage_at_hand(), self.state.finished_steps
        self.recorder.flush(stage)
        with self.recorder.paused(SAVING):
            if not self.state.is_finite():
                self.recorder.diverged(stage, step - 1, "A weight is not finite")
            saved = self._checkpoints.save()
            self._agree(0.0)  # all workers wait until the file exists
            return saved

    def evaluate(self, stage: Stage, stop: StopRequest) -> None:
        """Saves a checkpoint, evaluates, and records the metrics.

        Raises:
            Interrupted: if a signal asks the run to end; a resumed run starts with this evaluation.
        """
        saved = self.save()
        stop.saved(saved)
        with self.recorder.paused(EVALUATING) as activity:
            with self.input.evaluating(), self._explained_shortage():
                figures = self._evaluator.run(activity.count)
            stop.hold()
            is_best = self._checkpoints.save_if_best(**judged(figures, self._config.eval.best_metric))
        # Last, so that a run that is killed before this line evaluates again.
        self.recorder.evaluated(
            stage, self.state.finished_steps, figures, self._splits.evaluation.num_examples, is_best=is_best
        )
        stop.saved(saved)

    def is_out_of_patience(self) -> bool:
        """Returns whether as many evaluations as ``train.patience`` were no better than the best one, and says so."""
        patience = self._config.train.patience
        best, head = self._checkpoints.best_step, self._config.head_steps(self.stages[-1].end_step)
        count = self.recorder.log.evaluations_since(max(best, head))
        if patience is None or not self._agree(float(count >= patience)):
            return False
        told = f"The last {count} evaluations were no better than that of step {best}"
        self.recorder.progress.say(f"{told}, so the run ends here (train.patience={patience}).")
        return True

    def finish(self) -> dict[str, Any]:
        """Restores the best weights, writes plot and report, and returns the row of the last evaluation."""
        self._checkpoints.restore_best()
        # On every worker, because reading the statistics of BatchNorm needs all.
        step, replicas = self.state.finished_steps, self._strategy.num_replicas_in_sync
        samples = samples_of_training(self.state.models, self._splits.evaluation, self._config, step, replicas)
        if self._worker.is_chief:
            self.recorder.finish(samples)
        self._agree(0.0)  # the other workers must not exit before the first is done
        return self.recorder.log.last_evaluation()
