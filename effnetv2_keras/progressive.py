"""The stage plan of progressive learning with adaptive regularization, as a pure function (no TensorFlow).

Algorithm 1 of the paper (arXiv 2104.00298) divides training into M equal stages; the image size and the strength of
every regularizer grow from stage to stage. Table 13 compares this with random resizing, where the size of a stage is
random; here, its regularizers match that size. Everything that the training loop needs is a field of ``Stage``.
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
Trained = Literal["all", "classifier"]


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


@dataclasses.dataclass(frozen=True)
class Quantity:
    """The properties of a quantity that changes from stage to stage.

    Attributes:
        description: meaning and unit.
        default: ramp where none is set.
        heading: short name in tables and plots.
        low: smallest allowed value.
        high: largest allowed value.
        digits: significant digits in tables.
    """

    description: str
    default: Ramp
    heading: str
    unit: str
    source: str
    low: float = 0.0
    high: float = math.inf
    digits: int = 3


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the plan.

    A field annotated with a ``Quantity`` changes from stage to stage. The planner, the configuration, the tables and
    the plots need only this annotation. Code that uses the quantity reads ``stage.NAME``.

    Attributes:
        index: number of the stage, from 0.
        first_step: first global step of the stage.
        end_step: global step at which the next stage begins; the steps are ``range(first_step, end_step)``.
        image_size: side of the square training images, pixels.
        randaug_magnitude: RandAugment magnitude on the scale 0..30; 0 turns RandAugment off.
        mixup_alpha: parameter of mixup's Beta distribution; 0 turns mixup off.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 turns CutMix off.
        dropout_rate: dropout before the classifier, in [0, 1).
        trains: what the stage trains: all layers (that the configuration does not freeze), or only the classifier.
    """

    index: int
    first_step: int
    end_step: int
    image_size: Annotated[
        int,
        Quantity(
            "side of the training images, pixels",
            Ramp(128, 224),
            heading="size px",
            unit="pixels",
            source="paper Table 6",
            low=1,
            digits=9,
        ),
    ]
    randaug_magnitude: Annotated[
        float,
        Quantity(
            "RandAugment magnitude, for augment=randaug and ra_aa; 0 turns RandAugment off",
            Ramp(5, 15),
            heading="RandAugment",
            unit="magnitude",
            source="paper Table 6",
            high=30,
            digits=4,
        ),
    ]
    mixup_alpha: Annotated[
        float,
        Quantity(
            "mixup Beta parameter; 0 turns mixup off",
            Ramp(0, 0),
            heading="mixup",
            unit="Beta parameter",
            source="paper Table 6",
        ),
    ]
    cutmix_alpha: Annotated[
        float,
        Quantity(
            "CutMix Beta parameter; 0 turns CutMix off",
            Ramp(0, 0),
            heading="CutMix",
            unit="Beta parameter",
            source="reference code",
        ),
    ]
    dropout_rate: Annotated[
        float,
        Quantity(
            "dropout rate before the classifier",
            Ramp(0.1, 0.3),
            heading="dropout",
            unit="probability",
            source="paper Table 6",
            high=0.999,
        ),
    ]
    trains: Trained = "all"

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
        **ramps: ramps by the name of their quantity, ``Quantity.default`` for the others; units as in ``Stage``.

    Raises:
        UsageError: if a quantity is unknown, or a value is out of range.
    """

    def __init__(self, **ramps: Ramp) -> None:
        if unknown := ramps.keys() - QUANTITIES.keys():
            raise UsageError(f"Ramps got {', '.join(sorted(unknown))}; it knows {', '.join(QUANTITIES)}.")
        self._ramps = {name: ramps.get(name, quantity.default) for name, quantity in QUANTITIES.items()}
        for name, ramp in self._ramps.items():
            low, high = QUANTITIES[name].low, QUANTITIES[name].high
            if not (low <= ramp.start <= high and low <= ramp.end <= high):
                raise UsageError(f"{name} goes from {ramp.start} to {ramp.end}; it must stay in [{low:g}, {high:g}].")

    def __getitem__(self, name: str) -> Ramp:
        return self._ramps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ramps)

    def __len__(self) -> int:
        return len(self._ramps)


def _positions(count: int, order: StageOrder, seed: int) -> list[float]:
    """Returns the position of each stage on the ramps, from 0 (start) to 1 (end); a single stage is at 1."""
    if count == 1:
        return [1.0]
    if order == "random":
        generator = random.Random(seed)  # its random() returns the same numbers in every version of Python
        return [generator.random() for _ in range(count)]
    return [index / (count - 1) for index in range(count)]


def _reference_size(ramp: Ramp, index: int, count: int) -> float:
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
    head_steps: int = 0,
) -> tuple[Stage, ...]:
    """Returns the stages of a run, of equal length (to within one step), with the settings of each.

    Args:
        ramps: the quantities that change, and their limits.
        num_stages: number of stages; 1 means training with the final size and regularization throughout.
        total_steps: steps of the whole run.
        schedule: ``"paper"`` (Algorithm 1), or ``"original"`` (the size ramp of the reference code, and regularizers as
            in the paper).
        order: ``"rising"`` goes from the start to the end of the ramps. ``"random"`` draws a uniformly distributed
            position for each stage and reads all ramps there, so larger images are regularized more (Table 13).
        size_multiple: image sizes are rounded to the nearest multiple of this many pixels.
        seed: seed of the random positions; the same seed gives the same stages on every machine.
        head_steps: steps of a stage before the others that trains only the classifier; 0 for none.

    Returns:
        The stages. Their step ranges partition ``range(total_steps)``.

    Raises:
        UsageError: if there are more stages than steps, or a setting is out of range.
    """
    _check(num_stages, total_steps - head_steps, schedule, order, size_multiple)

    def stage(index: int, position: float) -> Stage:
        values: dict[str, Any] = {name: ramp.at(position) for name, ramp in ramps.items()}
        if schedule == "original":
            values["image_size"] = _reference_size(ramps["image_size"], index, num_stages)
        multiples = math.floor(values["image_size"] / size_multiple + 0.5)
        values["image_size"] = max(size_multiple, multiples * size_multiple)
        steps = total_steps - head_steps
        first_step, end_step = (head_steps + number * steps // num_stages for number in (index, index + 1))
        return Stage(index=index + bool(head_steps), first_step=first_step, end_step=end_step, **values)

    stages = tuple(stage(*place) for place in enumerate(_positions(num_stages, order, seed)))
    if not head_steps:
        return stages
    head = dataclasses.replace(stages[0], index=0, first_step=0, end_step=head_steps, trains="classifier")
    return (head, *stages)


def remaining(stages: Sequence[Stage], *, step: int) -> Iterator[tuple[Stage, range]]:
    """Yields each unfinished stage and its remaining steps: all of a new run, nothing of a finished one.

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
