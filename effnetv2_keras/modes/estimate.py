"""How long a run will take: measured for ``--mode=plan --estimate``, and roughly from multiply-adds without it."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.data.small_copies import with_small_copies
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.distribution.gpus import has_accelerator
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.evaluation import evaluator_of_training
from effnetv2_keras.training.input import RunInput
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep, reuse

_MEASURED_STEPS = 5

_MACS_PER_CORE = 5e9
"""Multiply-adds a second that one CPU core computes in training, to about a factor of two."""

HOPELESS_HOURS = 6.0
"""Hours on a CPU from which a plan warns and says what is faster."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The measured times of a run.

    Attributes:
        stages: seconds of a training step of each stage.
        evaluation: seconds of one evaluation.
        compiling: seconds that the first steps of all stages take longer.
        total: seconds of the whole run.
    """

    stages: tuple[float, ...]
    evaluation: float
    compiling: float
    total: float


def measure(
    config: Config,
    splits: Splits,
    strategy: tf.distribute.Strategy,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Returns how long the run will take on this machine, from a few real steps of each stage.

    It writes no files but small copies of large images, which the run will read.

    Args:
        config: configuration of the run.
        splits: data of the run.
        strategy: distribution strategy of the run.
        clock: returns the time, seconds; ``time.process_time`` measures the time of the processor instead.

    Raises:
        ConfigError, DataError, UsageError: if the settings or data cannot be used.
    """
    num_train, num_classes = splits.train.num_examples, len(splits.train.class_names)
    per_epoch, total_steps = config.steps_per_epoch(num_train), config.total_steps(num_train)
    state = create_state(config, strategy, num_classes=num_classes, steps_per_epoch=per_epoch, total_steps=total_steps)
    stages = config.plan(total_steps)
    with doing("making small copies of the images"):
        splits = Splits(with_small_copies(splits.train, config), splits.evaluation)
    with RunInput(config, splits, strategy) as data:
        times, step = [], None
        for stage in stages:
            with doing(f"measuring stage {stage.index + 1}/{len(stages)} ({stage.image_size} px)"):
                step = reuse([step], stage) or TrainStep(state, strategy, config=config, stage=stage)
                times.append(_step_times(step, data, stage, clock))
        evaluator = evaluator_of_training(state.models, strategy, config, splits, data)
        start = clock()
        with doing("measuring the evaluation"):
            evaluation = evaluator.try_batch()
        evaluation_starts = clock() - start
    count = math.ceil(total_steps / config.evaluation_period(num_train))
    steady = tuple(sorted(after)[len(after) // 2] for _, after in times)
    compiling = sum(first - usual for (first, _), usual in zip(times, steady)) + evaluation_starts
    training = sum(stage.num_steps * seconds for stage, seconds in zip(stages, steady))
    return Estimate(steady, evaluation, compiling, training + count * evaluation + compiling)


def _step_times(step: TrainStep, data: RunInput, stage: Stage, clock: Callable[[], float]) -> tuple[float, list[float]]:
    """Returns the seconds of the first step of a stage, with its input, and of the steps after it."""
    batches = data.batches(stage, stage.first_step)

    def take() -> float:
        start = clock()
        float(step(data.next(batches, stage, stage.first_step))["loss"])
        return clock() - start

    first = take()
    return first, [take() for _ in range(_MEASURED_STEPS)]


def rough_hours_on_cpu(config: Config, stages: Sequence[Stage], macs: Callable[[int], int | None]) -> float | None:
    """Returns about how many hours of training a CPU needs; None with a GPU or TPU, or if it cannot be computed.

    Args:
        config: configuration of the run.
        stages: stages of the run.
        macs: returns the multiply-adds of the network for an image of a size.
    """
    if has_accelerator():
        return None
    total = 0.0
    for stage in stages:
        of_image = macs(stage.image_size)
        if of_image is None:
            return None
        passes = 1 if stage.trains == "classifier" else 3  # backward costs about twice as much as forward
        total += passes * of_image * stage.num_steps * config.train.batch_size
    return total / (_MACS_PER_CORE * (os.cpu_count() or 1)) / 3600
