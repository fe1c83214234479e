"""The training loop: for each remaining stage, it builds input and train step, trains, saves and evaluates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import rich.console
import tensorflow as tf

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.data.class_weights import describe_classes
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.distribution.strategy import explained_losses, make_strategy, worker_of
from effnetv2_keras.errors import Interrupted, TrainingDiverged
from effnetv2_keras.progressive import Stage, remaining
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.tables import describe_evaluation
from effnetv2_keras.runs import commands
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.class_weights import weights_of_run
from effnetv2_keras.training.interruption import StopRequest, stop_on_signal
from effnetv2_keras.training.run import Run
from effnetv2_keras.training.verified import copied_splits, verified_splits


def train(
    config: Config,
    model_dir: str | os.PathLike[str],
    *,
    strategy: tf.distribute.Strategy | None = None,
    splits: Splits | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Trains a network, or resumes the run in ``model_dir`` from its newest checkpoint.

    Args:
        config: configuration of the run.
        model_dir: folder of the run, created if missing. With several workers, all of them must be able to access it.
        strategy: distribution strategy; None uses ``make_strategy()``.
        splits: training and evaluation data; None opens the data of ``config.data``.
        console: output for progress; None is standard output. With several workers, only the first prints.

    Returns:
        The row of the last evaluation, as in ``metrics.jsonl``.

    Raises:
        ConfigError, DataError, RunFolderError, WeightsError: if the settings, data, folder or initial weights cannot
            be used.
        UsageError: if a stage does not fit in memory, or the backend of Keras 3 is not TensorFlow.
        TrainingDiverged: if the loss, the gradient or a weight becomes NaN or infinite, and ``runtime.nan_policy`` is
            ``"stop"`` or ``runtime.max_rollbacks`` is reached. The last good checkpoint remains.
        Interrupted: if a signal ends the run; the state is saved first.
        WorkerLost: if another worker is lost; the last checkpoint remains.
    """
    strategy = strategy or make_strategy()
    worker, folder = worker_of(strategy), RunFolder(model_dir)
    console = (console or rich.console.Console()) if worker.is_chief else rich.console.Console(quiet=True)
    with explained_losses(worker), contextlib.ExitStack() as stack:
        if worker.is_chief:
            stack.enter_context(folder.lock())
        stop = stack.enter_context(stop_on_signal())
        stack.enter_context(_ended_if_asked(stop))
        stop.shared = worker.count > 1
        stop.saved()
        splits = verified_splits(config, folder, strategy, splits or open_splits(config.data), console, stop)
        config = config.with_batch_for(splits.train.num_examples)
        class_weights = weights_of_run(config, folder, strategy, splits.train)
        if note := describe_classes(config, splits.train, class_weights):
            show(console, note)
        splits = copied_splits(config, splits, console, stop)
        with doing("building the network"):
            run = Run(config, folder, strategy, splits, console, class_weights)
        stack.enter_context(run.shown())
        step, total = run.state.finished_steps, run.stages[-1].end_step
        if 0 < step < total:
            run.recorder.progress.say(f"Resuming {folder.path} after step {step:,} of {total:,}.")
        run.prepare(stop)
        while True:
            try:
                _train_stages(run, stop)
                with doing("drawing the report"):
                    result = run.finish()
                if step == total:
                    run.recorder.progress.say(_finished(folder, config, splits, result))
                return result
            except TrainingDiverged as error:
                run.roll_back(error)


def _finished(folder: RunFolder, config: Config, splits: Splits, result: dict[str, Any]) -> str:
    """Returns what to say of a run that was finished before, and the commands that go on from it."""
    text = (
        f"{folder.path} was finished before, so nothing was trained.\n"
        f"{describe_evaluation(result, splits.evaluation.num_examples)}"
    )
    if not commands.can_be_typed(config):
        return text
    more = commands.new_run(folder.path, {"train.epochs": config.train.epochs})
    evaluate, predict, export = (commands.of_mode(mode, folder.path) for mode in ("eval", "predict", "export"))
    return (
        f"{text}\nTo train more epochs, start a new run from its weights, with the number that you want:\n  {more}\n"
        f"To use it:\n  {evaluate}\n  {predict} PHOTOS\n  {export}"
    )


@contextlib.contextmanager
def _ended_if_asked(stop: StopRequest) -> Iterator[None]:
    """Raises ``Interrupted`` if another worker ends first after a signal, so that this worker does not start again."""
    try:
        yield
    except tf.errors.OpError as error:
        if not stop:
            raise
        raise Interrupted(
            f"{stop.name}: the run ended early. The same command resumes from the last checkpoint."
        ) from error


def _train_stages(run: Run, stop: StopRequest) -> None:
    if run.is_out_of_patience():  # when it was stopped after that, or finished
        return
    for stage, steps in remaining(run.stages, step=run.state.finished_steps):
        with doing("the next stage"):
            run.enter(stage, steps.start)
            if not _train_stage(run, stage, steps, stop):
                return


def _train_stage(run: Run, stage: Stage, steps: range, stop: StopRequest) -> bool:
    """Trains the rest of a stage; returns whether the run goes on, because it still gets better."""
    step = steps.start
    while step < steps.stop:
        count = run.due.steps_until(stage, step)
        if step > steps.start:  # the first step traces, and nothing is lost without it
            stop.hold()
        try:
            stopping = run.train(stage, step, count, stop)
        except KeyboardInterrupt:
            if not stop.first:
                raise
            raise Interrupted(stop.message(run.save())) from None
        stop.hold()
        step += count
        if stopping:
            raise Interrupted(stop.message(run.save()))
        if run.due.evaluation(step):
            run.evaluate(stage, stop)
            if run.is_out_of_patience():
                return False
        elif run.due.checkpoint(stage, step):
            stop.saved(run.save())
    return True
