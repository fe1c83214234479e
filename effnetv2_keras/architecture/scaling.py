"""From a network to larger ones: compound scaling of V1, made non-uniform as in V2 (no TensorFlow).

V1 (arXiv 1905.11946, section 3.3) multiplies depth, width and resolution by ``1.2**phi``, ``1.1**phi`` and
``1.15**phi``. V2 (arXiv 2104.00298, section 3.3) scales V2-S likewise but for two things: images of evaluation have 480
pixels at most, and more layers are gradually added to the late stages (its examples are stages 5 and 6). Its text gives
no numbers, so the rule here is read off the published tables; ``docs/scaling.md`` sets both side by side.

The published tables are that of V2-B0 by the coefficients of V1's B4, B5 and B7 (width 1.4, 1.6, 2.0; depth 1.8, 2.2,
3.1). S comes out by B4's, but for the channels of stage 4 (136 by the rule, 128 published) and of stage 6 (272, as in
the first version of the paper; 256 in the last). M and L come out by B5's and B7's with two changes to the table of B0:
six layers instead of five in stage 5, and a stage 7 of two layers and 320 channels, as wide as V1's. Every stage of L
is then as published, and of M all but stage 4 (152 channels by the rule, 160 published). The published stem is always
as wide as stage 1; B0's, and so the rule's, is twice as wide.

In a network of the size of V2-S this is ``LateLayers()``: a fifth more layers in stage 5, and a stage 7 like stage 6
with a quarter of its layers and 7/4 of its channels. They are added before depth scaling, and so grow with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec, round_filters, round_repeats
from effnetv2_keras.architecture.variants import MODELS
from effnetv2_keras.errors import UsageError

MAX_EVAL_SIZE = 480
"""Side of the largest evaluation image, pixels (V2, section 3.3)."""

MOST_PHI = 20
"""Largest phi: a network 38 times as deep. V1's own B7 is at 7."""

_TRAIN_SHARE = 0.8  # "about 20 %" smaller than for inference (V2, section 4.2 and Table 6; V1 in the reference code)
_SIZE_MULTIPLE = 8
_MORE_DROPOUT, _MOST_DROPOUT = 0.1, 0.5  # from S to M to L, in the reference code as in Table 6, whose highest is 0.5


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What a network is multiplied by; above 0.

    Attributes:
        width: of every channel count but the head's.
        depth: of every number of layers.
        resolution: of the side of the evaluation images.
    """

    width: float
    depth: float
    resolution: float

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"Scaling.{name} is {value!r}; it must be a finite number above 0, 1 for no change.")


@dataclasses.dataclass(frozen=True)
class LateLayers:
    """Layers that larger networks have more of in late stages, as shares of what the network has before scaling.

    Attributes:
        share: more layers in stage 5, where there is one, rounded up.
        stage_share: layers of a stage 7 over those of stage 6, rounded up. It is like stage 6 in all else but its
            stride, 1, and only added to networks of six stages.
        stage_width: channels of stage 7 over those of stage 6. 7/4 makes 448 of V2-S' 256, as V1's B4 has.
    """

    share: float = 0.2
    stage_share: float = 0.25
    stage_width: float = 1.75

    def added_to(self, blocks: Sequence[BlockSpec]) -> tuple[BlockSpec, ...]:
        """The stages with more layers, not yet scaled."""
        result = list(blocks)
        if len(result) >= 5:
            stage = result[4]
            result[4] = dataclasses.replace(stage, repeats=stage.repeats + _up(stage.repeats * self.share))
        if len(result) == 6:
            last = result[5]
            result.append(
                dataclasses.replace(
                    last,
                    repeats=_up(last.repeats * self.stage_share),
                    stride=1,
                    input_filters=last.output_filters,
                    output_filters=round_filters(last.output_filters, self.stage_width),
                )
            )
        return tuple(result)


LATE_LAYERS = LateLayers()
"""As in V2-M and V2-L, for a network of the size of V2-S."""


def compound(phi: float) -> Scaling:
    """V1's compound scaling: each step of ``phi`` takes about twice the multiply-adds.

    Args:
        phi: 0 to 20; 0 changes nothing.

    Raises:
        UsageError: if it lies outside.
    """
    if not 0 <= phi <= MOST_PHI:
        raise UsageError(f"phi is {phi}; it must lie in [0, {MOST_PHI}], as 1, which takes twice the multiply-adds.")
    return Scaling(width=1.1**phi, depth=1.2**phi, resolution=1.15**phi)


def _from_b4(larger: str) -> Scaling:
    before, after = MODELS["efficientnet-b4"], MODELS[larger]
    return Scaling(
        after.width / before.width, after.depth / before.depth, resolution=after.eval_size / before.eval_size
    )


STEPS = {"to-m": _from_b4("efficientnet-b5"), "to-l": _from_b4("efficientnet-b7")}
"""V2-S to V2-M and V2-L: what V1's B5 and B7 multiply more by than its B4 (close to ``phi`` of 1 and 3)."""


def scale(
    spec: ModelSpec,
    scaling: Scaling,
    *,
    name: str,
    late: LateLayers | None = LATE_LAYERS,
    max_eval_size: int = MAX_EVAL_SIZE,
    dropout_rate: float | None = None,
) -> ModelSpec:
    """Makes a larger network.

    Channels are rounded to the nearest multiple of 8 and numbers of layers up, as in V1. The head keeps its width, as
    from V2-S to V2-L. Evaluation images are rounded to the nearest multiple of 8 pixels, training images to that of
    0.8 of it.

    Args:
        spec: the network, whose own multipliers are multiplied.
        scaling: what by.
        name: of the result.
        late: what is added before scaling; None: nothing, which is V1's uniform scaling.
        max_eval_size: side of the largest evaluation image, pixels.
        dropout_rate: of the result, in [0, 1); None: the network's.

    Returns:
        The network with all numbers written out: its multipliers are 1.
    """
    width = spec.width * scaling.width

    def scaled(filters: int) -> int:
        return round_filters(filters, width, spec.least_width)

    blocks = tuple(
        dataclasses.replace(
            block,
            repeats=_layers(block.repeats, spec.depth, scaling.depth),
            input_filters=scaled(block.input_filters),
            output_filters=scaled(block.output_filters),
        )
        for block in (late.added_to(spec.blocks) if late else spec.blocks)
    )
    eval_size = min(max_eval_size, _size(spec.eval_size * scaling.resolution))
    return dataclasses.replace(
        spec,
        name=name,
        blocks=blocks,
        width=1.0,
        depth=1.0,
        least_width=0.0,
        head_filters=round_filters(spec.head_filters, spec.width, spec.least_width),
        train_size=_size(_TRAIN_SHARE * eval_size),
        eval_size=eval_size,
        dropout_rate=spec.dropout_rate if dropout_rate is None else dropout_rate,
    )


def family(spec: ModelSpec, phis: Sequence[float] = ()) -> tuple[ModelSpec, ...]:
    """Makes the larger networks of a family, each with 0.1 more dropout than the one before, at most 0.5.

    Args:
        spec: the smallest, of the size of V2-S; its stages may be any that a search found.
        phis: one network, ``NAME-phi1``, for each. Empty: ``NAME-to-m`` and ``NAME-to-l``, by ``STEPS``.

    Raises:
        UsageError: for a ``phi`` out of range.
    """
    scalings = {f"phi{phi:g}": compound(phi) for phi in sorted(phis)} or STEPS

    def dropout(member: int) -> float:
        return max(spec.dropout_rate, min(_MOST_DROPOUT, round(spec.dropout_rate + _MORE_DROPOUT * member, 3)))

    return tuple(
        scale(spec, scaling, name=f"{spec.name}-{step}", dropout_rate=dropout(member))
        for member, (step, scaling) in enumerate(scalings.items(), 1)
    )


def _layers(repeats: int, depth: float, factor: float) -> int:
    """Layers of a stage after scaling by ``factor``: never fewer than the network builds, unless that is below 1."""
    scaled = _up(repeats * depth * factor)
    return scaled if factor < 1 else max(scaled, round_repeats(repeats, depth))


def _up(layers: float) -> int:
    return math.ceil(layers - 1e-9)  # 9 * (2.2 / 1.8) is eleven, whatever its last bit


def _size(pixels: float) -> int:
    return max(_SIZE_MULTIPLE, math.floor(pixels / _SIZE_MULTIPLE + 0.5) * _SIZE_MULTIPLE)
