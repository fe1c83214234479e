"""Scaling of a network to larger ones: compound scaling as in V1, non-uniform as in V2 (no TensorFlow).

V1 (arXiv 1905.11946, section 3.3) multiplies depth, width and resolution by ``1.2**phi``, ``1.1**phi`` and
``1.15**phi``. V2 (arXiv 2104.00298, section 3.3) scales V2-S in the same way with two differences: evaluation images
have at most 480 pixels, and the late stages gradually get more layers (the paper's examples are stages 5 and 6). The
text of the paper gives no numbers, so the rule in this module is derived from the published tables. ``docs/scaling.md``
compares the results of the rule with these tables.

The published tables of S, M and L are the table of V2-B0 scaled by the coefficients of V1's B4, B5 and B7 (width 1.4,
1.6, 2.0; depth 1.8, 2.2, 3.1), as follows:

- S: B4's coefficients give the published table except for the channels of stage 4 (136 by the rule, 128 published) and
  of stage 6 (272 by the rule and in the first version of the paper, 256 in the last version).
- M and L: B5's and B7's coefficients need two changes to the table of B0, which are six layers instead of five in
  stage 5, and a stage 7 of two layers and 320 channels, as wide as V1's. Every stage of L is then as published. Of M,
  every stage but stage 4 is (152 channels by the rule, 160 published).
- The published stem is as wide as stage 1. The stem of B0, and therefore that of the rule, is twice as wide.

For a network of the size of V2-S, ``LateLayers()`` makes the same two changes: stage 5 gets a fifth more layers, and a
stage 7 is added that is like stage 6 with a quarter of its layers and 7/4 of its channels. The layers are added before
depth scaling, so their number grows with depth.
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
"""Largest ``phi``: the network becomes 38 times as deep. V1's B7 corresponds to 7."""

_TRAIN_SHARE = 0.8  # "about 20 %" smaller than for inference (V2, section 4.2 and Table 6; V1 in the reference code)
_SIZE_MULTIPLE = 8
# Dropout grows by 0.1 from S to M and from M to L (reference code and Table 6). The highest rate in Table 6 is 0.5.
_MORE_DROPOUT, _MOST_DROPOUT = 0.1, 0.5


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The factors that scale a network; each is above 0, and 1 changes nothing.

    Attributes:
        width: factor of every channel count except the head's.
        depth: factor of every number of layers.
        resolution: factor of the side of the evaluation images.

    Raises:
        UsageError: if a factor is not a finite number above 0.
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
    """The layers added to the late stages of larger networks, as shares of the network before scaling.

    Attributes:
        share: layers added to stage 5, as a share of its layers, rounded up. Networks without a stage 5 get none.
        stage_share: layers of the added stage 7 divided by those of stage 6, rounded up. Stage 7 has stride 1 and is
            otherwise like stage 6. Only networks of six stages get it.
        stage_width: channels of stage 7 divided by those of stage 6. With 7/4, the 256 channels of V2-S become 448, as
            in V1's B4.
    """

    share: float = 0.2
    stage_share: float = 0.25
    stage_width: float = 1.75

    def added_to(self, blocks: Sequence[BlockSpec]) -> tuple[BlockSpec, ...]:
        """Returns the stages with the added layers, before scaling."""
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
"""The added layers of V2-M and V2-L, for a network of the size of V2-S."""


def compound(phi: float) -> Scaling:
    """Returns the factors of V1's compound scaling; adding 1 to ``phi`` doubles the multiply-adds, approximately.

    Args:
        phi: compound coefficient, in [0, 20]; 0 changes nothing.

    Raises:
        UsageError: if ``phi`` is out of range.
    """
    if not 0 <= phi <= MOST_PHI:
        raise UsageError(f"phi is {phi}; it must lie in [0, {MOST_PHI}]. Each step of 1 doubles the multiply-adds.")
    return Scaling(width=1.1**phi, depth=1.2**phi, resolution=1.15**phi)


def _from_b4(larger: str) -> Scaling:
    before, after = MODELS["efficientnet-b4"], MODELS[larger]
    return Scaling(
        after.width / before.width, after.depth / before.depth, resolution=after.eval_size / before.eval_size
    )


STEPS = {"to-m": _from_b4("efficientnet-b5"), "to-l": _from_b4("efficientnet-b7")}
"""Factors from V2-S to V2-M and V2-L: the coefficients of V1's B5 and B7 divided by B4's (near ``phi`` of 1 and 3)."""


def scale(
    spec: ModelSpec,
    scaling: Scaling,
    *,
    name: str,
    late: LateLayers | None = LATE_LAYERS,
    max_eval_size: int = MAX_EVAL_SIZE,
    dropout_rate: float | None = None,
) -> ModelSpec:
    """Returns a scaled copy of a network.

    As in V1, channels are rounded to the nearest multiple of 8, and numbers of layers are rounded up. The head keeps
    its width, as it does from V2-S to V2-L. The evaluation size is rounded to the nearest multiple of 8 pixels. The
    training size is 0.8 of the evaluation size, also rounded to the nearest multiple of 8 pixels.

    Args:
        spec: the network. Its width and depth multipliers are multiplied by those of ``scaling``.
        scaling: the factors.
        name: name of the result.
        late: layers to add before scaling; None adds none, which is V1's uniform scaling.
        max_eval_size: side of the largest evaluation image, pixels.
        dropout_rate: dropout rate of the result, in [0, 1); None keeps that of ``spec``.

    Returns:
        The scaled network. Its stages hold the final numbers, and its width and depth multipliers are 1.
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
    """Returns the larger networks of a family; from each to the next, the dropout rate grows by 0.1, up to 0.5.

    Args:
        spec: the smallest network, of the size of V2-S. It may be the result of a search.
        phis: compound coefficients. Each gives one network, named such as ``NAME-phi1``. If empty, the result is
            ``NAME-to-m`` and ``NAME-to-l``, scaled by ``STEPS``.

    Returns:
        The networks, in increasing order of ``phi``.

    Raises:
        UsageError: if a ``phi`` is out of range.
    """
    scalings = {f"phi{phi:g}": compound(phi) for phi in sorted(phis)} or STEPS

    def dropout(member: int) -> float:
        return max(spec.dropout_rate, min(_MOST_DROPOUT, round(spec.dropout_rate + _MORE_DROPOUT * member, 3)))

    return tuple(
        scale(spec, scaling, name=f"{spec.name}-{step}", dropout_rate=dropout(member))
        for member, (step, scaling) in enumerate(scalings.items(), 1)
    )


def _layers(repeats: int, depth: float, factor: float) -> int:
    """Returns the layers of a stage after scaling; a factor of at least 1 never gives fewer than before scaling."""
    scaled = _up(repeats * depth * factor)
    return scaled if factor < 1 else max(scaled, round_repeats(repeats, depth))


def _up(layers: float) -> int:
    return math.ceil(layers - 1e-9)  # tolerates rounding errors: 9 * (2.2 / 1.8) must give 11


def _size(pixels: float) -> int:
    return max(_SIZE_MULTIPLE, math.floor(pixels / _SIZE_MULTIPLE + 0.5) * _SIZE_MULTIPLE)
