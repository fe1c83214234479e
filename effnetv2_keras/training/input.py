"""The input of a run: batches, a warning when they stall, and iterators that are freed in the background."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.ending import start_thread
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputFn, InputPlan, eval_input, train_input
from effnetv2_keras.data.service import next_batch
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import worker_of
from effnetv2_keras.optim import losses
from effnetv2_keras.progressive import Stage


class RunInput:
    """Makes the batches of a run. As a context manager, it warns about stalled input inside the ``with`` block.

    Args:
        config: configuration of the run.
        splits: data of the run.
        strategy: distribution strategy that receives the batches.
        class_weights: weight in the loss of each class, in label order; empty for weights of 1.

    Attributes:
        eval_batch_size: images per evaluation step over all replicas.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        strategy: tf.distribute.Strategy,
        class_weights: tuple[float, ...] = (),
    ) -> None:
        self._config, self._splits, self._strategy = config, splits, strategy
        self._unreadable = UnreadableImages(config.data.unreadable, config.data.max_unreadable)
        stages = config.plan(config.total_steps(splits.train.num_examples))
        self._plan = InputPlan(
            config.data,
            config.train.batch_size,
            config.input_normalization,
            self._unreadable,
            share_labels=not losses.are_independent(config.train.loss_type),
            class_weights=class_weights,
            as_float=any(stage.mixup_alpha or stage.cutmix_alpha for stage in stages),
        )
        self.eval_batch_size = eval_batch_size(config, strategy)
        self._eval_plan = InputPlan(config.data, self.eval_batch_size, config.input_normalization, self._unreadable)
        self._watchdog = Watchdog(config.runtime.stall_seconds)

    def __enter__(self) -> RunInput:
        self._watchdog.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watchdog.__exit__(*error)

    def batches(self, stage: Stage, first_step: int) -> Any:
        """Returns a distributed iterator over the batches of a stage, from global step ``first_step``."""
        input_fn = train_input(
            self._splits.train, self._plan, stage=stage, seed=self._config.train.seed, first_step=first_step
        )
        return iter(self._strategy.distribute_datasets_from_function(input_fn))

    def for_trial(self, stage: Stage, first_step: int) -> Any:
        """Returns batches from the start of the epoch of ``first_step``, where a stream need not skip records."""
        steps_per_epoch = self._config.steps_per_epoch(self._splits.train.num_examples)
        epoch = first_step // steps_per_epoch
        return self.batches(stage, min(first_step, math.ceil(epoch * steps_per_epoch)))

    def next(self, batches: Any, stage: Stage, step: int) -> Any:
        """Returns the next batch, which is for the step after ``step`` finished steps.

        Raises:
            DataError: if the data cannot be used.
        """
        awaited = f"the batch of step {step + 1} (stage {stage.index + 1}, {stage.image_size} px)"
        with self._watchdog.waiting_for(awaited), self.explained():
            return next_batch(batches, self._config.data.service)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raises ``DataError`` as ``next`` does, if code in a ``with`` block takes batches directly."""
        # With several workers, a lost worker cannot be distinguished from a lost service.
        services = self._config.data.service if worker_of(self._strategy).count == 1 else ()
        with self._unreadable.explained(self._splits.train, services):
            yield

    def evaluation(self) -> InputFn:
        """Returns the evaluation input for ``Evaluator``."""
        return eval_input(self._splits.evaluation, self._eval_plan, image_size=self._config.eval_size)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Explains data errors of code in a ``with`` block that takes batches of ``evaluation``.

        Raises:
            DataError: if the data cannot be used.
        """
        with self._unreadable.explained(self._splits.evaluation):
            yield

    def pixels(self, batch: Any) -> npt.NDArray[Any]:
        """Returns the images of the first replica in a training batch, ``[b, S, S, 3]``, pixels in 0..255."""
        return self._plan.pixels(self._strategy.experimental_local_results(batch["image"])[0]).numpy()


def eval_batch_size(config: Config, strategy: tf.distribute.Strategy) -> int:
    """Returns the images per evaluation step over all replicas, and logs a sentence if ``eval.batch_size`` differs."""
    replicas = strategy.num_replicas_in_sync
    size = config.eval_batch_size(replicas)
    if size != config.eval.batch_size:
        logging.info(
            "eval.batch_size=%d counts the images over all replicas and is no multiple of the %d replicas here, so "
            "evaluations take %d images at a time. The metrics do not depend on it.",
            config.eval.batch_size,
            replicas,
            size,
        )
    return size


class Watchdog:
    """Warns about long waits. As a context manager, it runs a thread that checks during the ``with`` block.

    Args:
        seconds: time of waiting before the first warning and between two warnings.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._awaited: tuple[str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        self._thread.join()

    @contextlib.contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Watches the code in a ``with`` block, which waits for ``what``; the warning contains this text."""
        self._awaited = (what, time.monotonic())
        try:
            yield
        finally:
            self._awaited = None

    def _watch(self) -> None:
        warned: tuple[Any, float] = (None, 0.0)
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            awaited, now = self._awaited, time.monotonic()
            since = warned[1] if awaited is warned[0] else awaited[1] if awaited else now
            if awaited and now - since >= self._seconds:
                logging.warning(
                    "The input is stalled: waiting for %s for %.0f s. Check that the storage of data.data_dir and the "
                    "processes of data.service can be reached and are fast enough.",
                    awaited[0],
                    now - awaited[1],
                )
                warned = (awaited, now)


def free_in_background(box: list[Any]) -> None:
    """Empties a list that holds the last reference to an iterator, in a thread, because freeing it may take a minute.

    Freeing an iterator waits for the autotuning thread of tf.data. That thread sleeps as long as the iterator has been
    in use, at most a minute. TensorFlow wakes the thread before it sets the flag that the thread checks, so the thread
    often goes back to sleep. TensorFlow waits for it even at the end of the process, unless ``ending.end_process`` ends
    that.
    """
    start_thread(box.clear)  # not a daemon: Python cannot stop one in native code
