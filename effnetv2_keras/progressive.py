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
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_type_hints

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


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a quantity is that changes from stage to stage.

    Attributes:
        description: what it is, with its unit.
        default: its ramp where a configuration names no other.
        heading: its short name in tables and plots.
        low: smallest value allowed.
        high: largest value allowed.
        digits: significant digits in tables.
    """

    description: str
    default: Ramp
    heading: str
    low: float = 0.0
    high: float = math.inf
    digits: int = 3


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the plan.

    A field annotated with a ``Quantity`` changes from stage to stage. The annotation is all that the planner, the
    configuration, the tables and the plots need; whatever depends on the quantity reads ``stage.NAME``.

    Attributes:
        index: number of the stage, from 0.
        first_step: global step at which the stage begins.
        end_step: global step at which the next stage begins; ``range(first_step, end_step)`` are the stage's steps.
        image_size: side of the square training images, pixels.
        randaug_magnitude: RandAugment magnitude on the scale 0..30; 0 turns RandAugment off.
        mixup_alpha: Beta parameter of mixup; 0 turns mixup off.
        cutmix_alpha: Beta parameter of CutMix; 0 turns CutMix off.
        dropout_rate: dropout rate before the classifier, in [0, 1).
    """

    index: int
    first_step: int
    end_step: int
    image_size: Annotated[
        int, Quantity("side of the training images, pixels", Ramp(128, 224), heading="size px", low=1, digits=9)
    ]
    randaug_magnitude: Annotated[
        float,
        Quantity(
            "RandAugment magnitude, for augment=randaug and ra_aa; 0 turns RandAugment off",
            Ramp(5, 15),
            heading="RandAugment",
            high=30,
            digits=4,
        ),
    ]
    mixup_alpha: Annotated[float, Quantity("mixup Beta parameter; 0 turns mixup off", Ramp(0, 0), heading="mixup")]
    cutmix_alpha: Annotated[float, Quantity("CutMix Beta parameter; 0 turns CutMix off", Ramp(0, 0), heading="CutMix")]
    dropout_rate: Annotated[
        float, Quantity("dropout rate before the classifier", Ramp(0.1, 0.3), heading="dropout", high=0.999)
    ]

    @property
    def num_steps(self) -> int:
        """Number of training steps in the stage."""
        return self.end_step - self.first_step


QUANTITIES: dict[str, Quantity] = {
    name: note
    for name, hint in get_type_hints(Stage, include_extras=True).items()
    for note in getattr(hint, "__metadata__", ())
}
"""Every quantity that changes from stage to stage, by the name of its field in ``Stage``."""


class Ramps(Mapping[str, Ramp]):
    """A ramp for each of ``QUANTITIES``: ``Ramps(image_size=Ramp(128, 300), dropout_rate=Ramp(0.1, 0.3), ...)``.

    Args:
        **ramps: by the name of the quantity; all of them are needed. Units are those of ``Stage``.

    Raises:
        UsageError: if a quantity is missing or unknown, or a ramp leaves its quantity's range.
    """

    def __init__(self, **ramps: Ramp) -> None:
        if ramps.keys() != QUANTITIES.keys():
            raise UsageError(f"Ramps got {', '.join(ramps) or 'nothing'}; it needs exactly {', '.join(QUANTITIES)}.")
        for name, ramp in ramps.items():
            low, high = QUANTITIES[name].low, QUANTITIES[name].high
            if not (low <= ramp.start <= high and low <= ramp.end <= high):
                raise UsageError(f"{name} goes from {ramp.start} to {ramp.end}; it must stay in [{low:g}, {high:g}].")
        self._ramps = ramps

    def __getitem__(self, name: str) -> Ramp:
        return self._ramps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ramps)

    def __len__(self) -> int:
        return len(self._ramps)


def _positions(count: int, order: StageOrder, seed: int) -> list[float]:
    """Where each stage lies on the ramps: 0 at their starts, 1 at their ends; a single stage lies at the end."""
    if count == 1:
        return [1.0]
    if order == "random":
        generator = random.Random(seed)  # whose random() is the same in every version of Python
        return [generator.random() for _ in range(count)]
    return [index / (count - 1) for index in range(count)]


def _reference_size(ramp: Ramp, index: int, count: int) -> float:
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
        values: dict[str, Any] = {name: ramp.at(position) for name, ramp in ramps.items()}
        if schedule == "original":
            values["image_size"] = _reference_size(ramps["image_size"], index, num_stages)
        multiples = math.floor(values["image_size"] / size_multiple + 0.5)
        values["image_size"] = max(size_multiple, multiples * size_multiple)
        first_step, end_step = (number * total_steps // num_stages for number in (index, index + 1))
        return Stage(index=index, first_step=first_step, end_step=end_step, **values)

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
