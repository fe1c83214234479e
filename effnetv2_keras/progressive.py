"""The stage plan of progressive learning with adaptive regularization, as a pure function (no TensorFlow).

Algorithm 1 of the paper (arXiv 2104.00298) divides training into M equal stages; the image size and the strength of
every regularizer grow from stage to stage. Table 13 of the paper compares this with random resizing, in which the image
size of each stage is random. In this module, random resizing also chooses the regularizers to match that size.
Everything that the training loop needs to know about a stage is a field of ``Stage``.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from effnetv2_keras.errors import UsageError

RampSchedule = Literal["paper", "original"]
StageOrder = Literal["rising", "random"]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A quantity that grows (or shrinks) linearly over the stages.

    If the order of the stages is random, ``start`` and ``end`` are the limits of the range of values.

    Attributes:
        start: value in the first stage.
        end: value in the last stage.

    Raises:
        UsageError: if a value is not finite.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise UsageError(f"Ramp({self.start!r}, {self.end!r}): both ends must be finite numbers.")

    def at(self, position: float) -> float:
        """Returns the value at a position from 0 (``start``) to 1 (``end``)."""
        return self.start + (self.end - self.start) * position

    def value_at(self, index: int, count: int) -> float:
        """Returns the value in stage ``index`` of ``count``: ``start + (end - start) * index / (count - 1)``.

        With one stage, the value is ``end``, so that training at a fixed size uses the final settings.

        Raises:
            UsageError: if ``index`` is not in [0, count).
        """
        if not 0 <= index < count:
            raise UsageError(f"Stage {index} is not one of {count} stages; use 0 to {count - 1}.")
        return self.at(index / (count - 1) if count > 1 else 1.0)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the plan.

    Attributes:
        index: number of the stage, from 0.
        first_step: first global step of the stage.
        end_step: global step at which the next stage begins; the steps are ``range(first_step, end_step)``.
        image_size: side of the square training images, pixels.
        randaug_magnitude: RandAugment magnitude on the scale 0..30; 0 turns RandAugment off.
        mixup_alpha: parameter of mixup's Beta distribution; 0 turns mixup off.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 turns CutMix off.
        dropout_rate: dropout before the classifier, in [0, 1).
    """

    index: int
    first_step: int
    end_step: int
    image_size: int
    randaug_magnitude: float
    mixup_alpha: float
    cutmix_alpha: float
    dropout_rate: float

    @property
    def num_steps(self) -> int:
        """Number of training steps in the stage."""
        return self.end_step - self.first_step


@dataclasses.dataclass(frozen=True)
class Ramps:
    """The quantities that change from stage to stage; for units and ranges see ``Stage``.

    Raises:
        UsageError: if a value is out of range.
    """

    image_size: Ramp
    randaug_magnitude: Ramp
    mixup_alpha: Ramp
    cutmix_alpha: Ramp
    dropout_rate: Ramp

    def __post_init__(self) -> None:
        for name, low, high in (
            ("image_size", 1, math.inf),
            ("randaug_magnitude", 0, 30),
            ("mixup_alpha", 0, math.inf),
            ("cutmix_alpha", 0, math.inf),
            ("dropout_rate", 0, 0.999),
        ):
            ramp: Ramp = getattr(self, name)
            for value in (ramp.start, ramp.end):
                if not low <= value <= high:
                    raise UsageError(f"{name} goes from {ramp.start} to {ramp.end}; it must stay in [{low}, {high}].")


def _positions(count: int, order: StageOrder, seed: int) -> list[float]:
    """Returns the position of each stage on the ramps, from 0 (start) to 1 (end); a single stage is at 1."""
    if count == 1:
        return [1.0]
    if order == "random":
        generator = random.Random(seed)  # its random() returns the same numbers in every version of Python
        return [generator.random() for _ in range(count)]
    return [index / (count - 1) for index in range(count)]


def _original_size(ramp: Ramp, index: int, count: int) -> float:
    """Returns the size in the reference code (``main.py``), which grows by ``(index + 1) / count``.

    No stage has the size ``start``.
    """
    return math.floor(ramp.start + (ramp.end - ramp.start) * (index + 1) / count)


def _check(num_stages: int, total_steps: int, schedule: RampSchedule, order: StageOrder, size_multiple: int) -> None:
    if num_stages < 1:
        raise UsageError(f"num_stages is {num_stages}; it must be at least 1.")
    if total_steps < num_stages:
        raise UsageError(
            f"{num_stages} stages need at least {num_stages} steps, but the run has {total_steps}. "
            "Train for more epochs, use a smaller batch, or use fewer stages."
        )
    if size_multiple < 1:
        raise UsageError(f"size_multiple is {size_multiple}; it must be at least 1 pixel.")
    if schedule not in get_args(RampSchedule):
        raise UsageError(f"Unknown stage schedule {schedule!r}; use one of: {', '.join(get_args(RampSchedule))}.")
    if order not in get_args(StageOrder):
        raise UsageError(f"Unknown order of stages {order!r}; use one of: {', '.join(get_args(StageOrder))}.")
    if (schedule, order) == ("original", "random"):
        raise UsageError(
            "order is 'random', but the size ramp of schedule='original' only rises; use schedule='paper', or "
            "order='rising'."
        )


def plan_stages(
    ramps: Ramps,
    *,
    num_stages: int,
    total_steps: int,
    schedule: RampSchedule = "paper",
    order: StageOrder = "rising",
    size_multiple: int = 1,
    seed: int = 0,
) -> tuple[Stage, ...]:
    """Returns the stages of a run, of equal length (to within one step), with the settings of each.

    Args:
        ramps: the quantities that change, and their limits.
        num_stages: number of stages; 1 means training with the final size and regularization throughout.
        total_steps: steps of the whole run.
        schedule: ``"paper"`` (Algorithm 1), or ``"original"`` (the size ramp of the reference code, and regularizers as
            in the paper).
        order: ``"rising"`` goes from the start to the end of the ramps. ``"random"`` draws a uniformly distributed
            position for each stage and reads all ramps at this position, so larger images are still regularized more
            (random resizing, Table 13). A regularizer with equal ``start`` and ``end`` does not change.
        size_multiple: image sizes are rounded to the nearest multiple of this many pixels.
        seed: seed of the random positions; the same seed gives the same stages on every machine.

    Returns:
        The stages. Their step ranges partition ``range(total_steps)``.

    Raises:
        UsageError: if there are more stages than steps, or a setting is out of range.
    """
    _check(num_stages, total_steps, schedule, order, size_multiple)

    def stage(index: int, position: float) -> Stage:
        original = schedule == "original"
        size = _original_size(ramps.image_size, index, num_stages) if original else ramps.image_size.at(position)
        return Stage(
            index=index,
            first_step=index * total_steps // num_stages,
            end_step=(index + 1) * total_steps // num_stages,
            image_size=max(size_multiple, math.floor(size / size_multiple + 0.5) * size_multiple),
            randaug_magnitude=ramps.randaug_magnitude.at(position),
            mixup_alpha=ramps.mixup_alpha.at(position),
            cutmix_alpha=ramps.cutmix_alpha.at(position),
            dropout_rate=ramps.dropout_rate.at(position),
        )

    return tuple(stage(*place) for place in enumerate(_positions(num_stages, order, seed)))


def remaining(stages: Sequence[Stage], *, step: int) -> Iterator[tuple[Stage, range]]:
    """Yields each unfinished stage and the range of its remaining steps.

    New runs and resumed runs both follow this function: it yields everything for a new run, and nothing for a finished
    run.

    Args:
        stages: the plan.
        step: number of finished steps; 0 for a new run.

    Raises:
        UsageError: if ``step`` is outside the plan.
    """
    if not 0 <= step <= stages[-1].end_step:
        raise UsageError(
            f"Step {step} is outside the plan, which has {stages[-1].end_step} steps. Use the settings with which the "
            "run began."
        )
    for stage in stages:
        if step < stage.end_step:
            yield stage, range(max(step, stage.first_step), stage.end_step)
