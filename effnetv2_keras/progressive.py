"""Progressive learning with adaptive regularisation: the stage plan, as a pure function (no TensorFlow).

Algorithm 1 of the paper (arXiv 2104.00298): training is cut into M equal stages; the image size and every
regulariser grow from stage to stage. In random resizing, which its Table 13 compares with that, each stage has a size
drawn anew, and here the regularisers that belong to it. Everything that the training loop asks of a stage is a field of
``Stage``.
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

    Attributes:
        start: value of the first stage.
        end: value of the last stage. Where the stages' order is random, these are the ends of the range.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise UsageError(f"Ramp({self.start!r}, {self.end!r}): both ends must be finite numbers.")

    def at(self, position: float) -> float:
        """Value at a position from 0, the start, to 1, the end."""
        return self.start + (self.end - self.start) * position

    def value_at(self, index: int, count: int) -> float:
        """Value in stage ``index`` of ``count``: ``start + (end - start) * index / (count - 1)``.

        With one stage it is ``end``: training at a fixed size uses the final settings.
        """
        if not 0 <= index < count:
            raise UsageError(f"Stage {index} is not one of {count} stages (0 to {count - 1}).")
        return self.at(index / (count - 1) if count > 1 else 1.0)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the plan.

    Attributes:
        index: 0 for the first.
        first_step: global step at which it begins.
        end_step: global step at which the next begins; ``range(first_step, end_step)`` are its steps.
        image_size: side of the square training images, pixels.
        randaug_magnitude: RandAugment magnitude on the scale 0..30; 0 turns RandAugment off.
        mixup_alpha: Beta parameter of mixup; 0 turns it off.
        cutmix_alpha: Beta parameter of CutMix; 0 turns it off.
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
    """The quantities that change from stage to stage; units as in ``Stage``."""

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
    """Where each stage lies on the ramps: 0 at their starts, 1 at their ends; a single stage lies at the end."""
    if count == 1:
        return [1.0]
    if order == "random":
        generator = random.Random(seed)  # whose random() is the same in every version of Python
        return [generator.random() for _ in range(count)]
    return [index / (count - 1) for index in range(count)]


def _original_size(ramp: Ramp, index: int, count: int) -> float:
    """Reference code (``main.py``): the size grows by ``(index + 1) / count``, so no stage is at ``start``."""
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
            "The size ramp of schedule='original' only rises, but order is 'random'; use schedule='paper' with it."
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
    """Cuts ``total_steps`` into ``num_stages`` stages of equal length (to one step) and gives each its settings.

    Args:
        ramps: what changes, and between which values.
        num_stages: 1 means training at the final size and strength throughout.
        total_steps: steps of the whole run.
        schedule: ``"paper"`` (Algorithm 1) or ``"original"`` (the reference code's size ramp, regularisers as in the
            paper).
        order: ``"rising"`` from the ramps' starts to their ends, or ``"random"``: a stage lies anywhere between them,
            evenly distributed, and all ramps are read at the same place, so that larger images are still regularised
            more (random resizing, Table 13; a regulariser whose ends are equal stays as it is).
        size_multiple: image sizes are rounded to the nearest multiple of this many pixels.
        seed: of the random places; the same seed gives the same stages on every machine.

    Returns:
        The stages; their step ranges partition ``range(total_steps)``.

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
    """Gives what is left to do after ``step`` finished steps: each unfinished stage with the steps still to run.

    Resuming is this function: a fresh run is ``step=0``, a finished one yields nothing.

    Raises:
        UsageError: if ``step`` lies outside the plan.
    """
    if not 0 <= step <= stages[-1].end_step:
        raise UsageError(f"Step {step} lies outside the plan, which has {stages[-1].end_step} steps.")
    for stage in stages:
        if step < stage.end_step:
            yield stage, range(max(step, stage.first_step), stage.end_step)
