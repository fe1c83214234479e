"""Measurement of the training step time of a network relative to another, which cancels out other load."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep

_WARM_UP = 2  # steps: the first includes tracing, the second includes growth of the allocator


class Stopwatch:
    """Compares the training step time of networks with that of a reference network.

    All networks train on random images with the settings of the last stage of ``config``. A step includes forward and
    backward pass, optimizer and moving average.

    Args:
        config: configuration with batch size, precision, optimizer and image size.
        reference: the reference network, which is compiled once.
        strategy: distribution strategy of the steps.
        num_classes: width of the classifiers.
    """

    def __init__(
        self, config: Config, reference: specs.ModelSpec, strategy: tf.distribute.Strategy, *, num_classes: int
    ) -> None:
        self._make_stepper = functools.partial(
            stepper, config, strategy, config.progressive.plan(config.progressive.stages)[-1], num_classes
        )
        self._reference = self._make_stepper(reference)

    def relative_time(self, spec: specs.ModelSpec, *, steps: int) -> float:
        """Returns the median time of a training step of a network divided by that of the reference.

        The steps of the two networks alternate, and each turn swaps their order.

        Args:
            spec: the network.
            steps: number of timed steps of each network, at least 1.
        """
        contestants = (self._make_stepper(spec), self._reference)
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(_WARM_UP + steps):
            for number in (0, 1) if turn % 2 else (1, 0):
                start = time.perf_counter()
                contestants[number]()
                seconds[number].append(time.perf_counter() - start)
        own, references = (statistics.median(some[_WARM_UP:]) for some in seconds)
        return own / references


def stepper(
    config: Config, strategy: tf.distribute.Strategy, stage: Stage, num_classes: int, spec: specs.ModelSpec
) -> Callable[[], None]:
    """Returns a function that runs a training step on random images and waits for its end."""
    config = config.with_network(spec)
    state = create_state(config, strategy, num_classes=num_classes, steps_per_epoch=1000, total_steps=1_000_000)
    step = TrainStep(state, strategy, config=config, stage=stage)
    images = config.train.batch_size // strategy.num_replicas_in_sync
    generator = tf.random.Generator.from_seed(0)

    def batch(_: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
        # The images are random, because zeros would make BatchNorm's gradients infinite.
        side = stage.image_size
        return {
            "image": generator.uniform([images, side, side, 3], 0.0, 255.0),
            "label": tf.one_hot(generator.uniform([images], 0, num_classes, tf.int32), num_classes),
            "weight": tf.ones([images]),
        }

    batches = strategy.experimental_distribute_values_from_function(batch)

    def take() -> None:
        step(batches)["loss"].numpy()

    return take
