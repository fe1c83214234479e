"""The training loop: for each stage that is left, rebuild the input, make the step, iterate, save, evaluate."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import rich.console
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.distribution.strategy import explained_losses, make_strategy, worker_of
from effnetv2_keras.errors import Interrupted, TrainingDiverged
from effnetv2_keras.models.keras_compat import require_keras_2
from effnetv2_keras.progressive import remaining
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.interruption import StopRequest, stop_on_signal
from effnetv2_keras.training.run import Run


def train(
    config: Config,
    model_dir: str | os.PathLike[str],
    *,
    strategy: tf.distribute.Strategy | None = None,
    splits: Splits | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Trains a network, or goes on with the run in ``model_dir`` from its newest checkpoint.

    Args:
        config: the run.
        model_dir: its folder, created if missing; for several workers, one that all of them reach.
        strategy: devices; None takes what ``make_strategy("auto")`` finds.
        splits: the data; None opens what ``config.data`` names.
        console: where progress is drawn; None is standard output. Of several workers only the first draws.

    Returns:
        The last evaluation's row, as in ``metrics.jsonl``.

    Raises:
        ConfigError, DataError, RunFolderError, WeightsError: for settings, data, a folder or initial weights that
            cannot be used.
        UsageError: for a stage that does not fit in memory, or if ``tf.keras`` is Keras 3.
        TrainingDiverged: if the loss, the gradient or a weight becomes NaN or infinite, and ``runtime.nan_policy`` does
            not go back to the last good checkpoint, or did so ``runtime.max_rollbacks`` times; that checkpoint stays.
        Interrupted: if a signal asked the run to end; its state was saved first.
        WorkerLost: if another worker is gone; the last checkpoint stays.
    """
    require_keras_2("Training")
    strategy = strategy or make_strategy()
    worker, folder = worker_of(strategy), RunFolder(model_dir)
    console = (console or rich.console.Console()) if worker.is_chief else rich.console.Console(quiet=True)
    with explained_losses(worker), contextlib.ExitStack() as stack:
        if worker.is_chief:
            stack.enter_context(folder.lock())
        stop = stack.enter_context(stop_on_signal())
        stack.enter_context(_ended_if_asked(stop))
        run = Run(config, folder, strategy, splits or open_splits(config.data), console)
        stack.enter_context(run.shown())
        run.prepare(stop)
        while True:
            try:
                _train_stages(run, stop)
                return run.finish()
            except TrainingDiverged as error:
                run.roll_back(error)


@contextlib.contextmanager
def _ended_if_asked(stop: StopRequest) -> Iterator[None]:
    """Ends a run that was asked to, rather than let it start again, when another worker was ended sooner."""
    try:
        yield
    except tf.errors.OpError as error:
        if not stop:
            raise
        raise Interrupted(f"{stop.name}: the same command goes on from the last checkpoint.") from error


def _train_stages(run: Run, stop: StopRequest) -> None:
    for stage, steps in remaining(run.stages, step=run.state.finished_steps):
        run.enter(stage, steps.start)
        step = steps.start
        while step < steps.stop:
            count = run.steps_until_due(stage, step)
            stopping = run.train(stage, step, count, stop)
            step += count
            if stopping:
                raise Interrupted(f"{stop.name}: saved {run.save()}. The same command goes on from there.")
            if run.evaluation_due(step):
                run.evaluate(stage, stop)
            elif run.checkpoint_due(stage, step):
                run.save()
