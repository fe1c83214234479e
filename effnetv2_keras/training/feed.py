"""The input of a run, watched over while it is awaited."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputFn, InputPlan, eval_input, train_input
from effnetv2_keras.data.service import next_batch
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import worker_of
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.watchdog import Watchdog


class Feed:
    """Makes the batches of a run; a context in which stalled input is reported.

    Args:
        config: of the run.
        splits: its data.
        strategy: where batches go.
        normalization: how pixels become network input, or None to leave that to the model.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        strategy: tf.distribute.Strategy,
        normalization: specs.Normalization | None,
    ) -> None:
        self._config, self._splits, self._strategy = config, splits, strategy
        self._unreadable = UnreadableImages(config.data.unreadable)
        self._plan = InputPlan(config.data, config.train.batch_size, normalization, self._unreadable)
        self._eval_plan = InputPlan(config.data, config.eval.batch_size, normalization, self._unreadable)
        self._watchdog = Watchdog(config.runtime.stall_seconds)

    def __enter__(self) -> Feed:
        self._watchdog.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watchdog.__exit__(*error)

    def batches(self, stage: Stage, first_step: int) -> Any:
        """A distributed iterator over a stage's batches from ``first_step`` on."""
        input_fn = train_input(
            self._splits.train, self._plan, stage=stage, seed=self._config.train.seed, first_step=first_step
        )
        return iter(self._strategy.distribute_datasets_from_function(input_fn))

    def for_trial(self, stage: Stage, first_step: int) -> Any:
        """The same from the beginning of an epoch on, up to where a stream then need not be read first."""
        steps_per_epoch = self._splits.train.num_examples / self._config.train.batch_size
        epoch = int(first_step / steps_per_epoch)
        return self.batches(stage, min(first_step, math.ceil(epoch * steps_per_epoch)))

    def next(self, batches: Any, stage: Stage, step: int) -> Any:
        """The next batch, for the step after ``step`` finished ones.

        Raises:
            DataError: for data that cannot be used.
        """
        awaited = f"the batch of step {step + 1} (stage {stage.index + 1}, {stage.image_size} px)"
        with self._watchdog.waiting_for(awaited), self.explained():
            return next_batch(batches, self._config.data.service)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """A context that takes batches from ``batches`` itself; it raises as ``next`` does."""
        # Of several workers, one that is gone looks like a service that is gone.
        services = self._config.data.service if worker_of(self._strategy).count == 1 else ()
        with self._unreadable.explained(self._splits.train, services):
            yield

    def evaluation(self) -> InputFn:
        """The evaluation input, for ``Evaluator``."""
        return eval_input(self._splits.evaluation, self._eval_plan, image_size=self._config.eval_size)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context that takes batches of ``evaluation``.

        Raises:
            DataError: for data that cannot be used.
        """
        with self._unreadable.explained(self._splits.evaluation):
            yield

    def pixels(self, batch: Any) -> npt.NDArray[Any]:
        """The images of the first replica's part of a training batch, ``[b, S, S, 3]`` of values 0..255."""
        return self._plan.pixels(self._strategy.experimental_local_results(batch["image"])[0]).numpy()
