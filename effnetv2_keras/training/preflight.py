"""Memory checks before the first step: the stage that needs the most memory, and advice if a step does not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage


class MemoryShortageError(UsageError):
    """A step needs more memory than the device has."""


def largest_stage(stages: Sequence[Stage], config: Config) -> Stage:
    """Returns the stage with the most pixels in a micro-batch, which needs the most memory; if equal, the later one."""
    return max(reversed(stages), key=lambda stage: stage.image_size**2 / config.micro_batches(stage))


@contextlib.contextmanager
def explained_shortage(config: Config, replicas: int, stage: Stage | None = None) -> Iterator[None]:
    """Explains what to change if code in a ``with`` block runs out of device memory.

    Args:
        config: configuration of the run.
        replicas: number of replicas.
        stage: stage whose step the code takes; None for the evaluation.

    Raises:
        MemoryShortageError: instead of the error of TensorFlow.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        advice = _advice(config, replicas, stage) if stage else _advice_for_evaluation(config, replicas)
        raise MemoryShortageError(f"{advice} ({str(error).splitlines()[0]})") from error


def _advice(config: Config, replicas: int, stage: Stage) -> str:
    parts = config.micro_batches(stage)
    images = config.train.batch_size // replicas // parts
    return (
        f"Stage {stage.index + 1} does not fit in memory: {images} images of {stage.image_size} px at a time on each "
        f"of {replicas} replicas, in {config.precision.policy}. Compute a batch in more micro-batches, which only "
        f"changes BatchNorm: train.accumulation_steps={2 * parts}, or one number for each of the "
        f"{config.progressive.stages} stages, with {2 * parts} for this one. Or use a smaller train.batch_size, "
        "runtime.rematerialize=true, precision.policy=mixed_bfloat16, more replicas, or a smaller "
        "progressive.image_size.end."
    )


def _advice_for_evaluation(config: Config, replicas: int) -> str:
    images = config.eval_batch_size(replicas) // replicas
    return (
        f"The evaluation does not fit in memory: {images} images of {config.eval_size} px at a time on each "
        f"of {replicas} replicas. Use an eval.batch_size below {config.eval.batch_size}; a run can resume with it."
    )
