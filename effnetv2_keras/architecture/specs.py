"""EfficientNetV2, and V1 that it is measured against, as data: blocks, models, and the scaling rules that join them.

No TensorFlow here. ``variants`` has the tables of the named networks.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, Union

from effnetv2_keras.errors import UsageError

BlockKind = Literal["mbconv", "fused_mbconv"]
Normalization = Literal["centered", "imagenet", "symmetric"]

DEPTH_DIVISOR = 8
"""Every scaled width is a multiple of this, and never below it (reference code, ``round_filters``)."""


PIXEL_STATISTICS: dict[Normalization, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "centered": ((128.0, 128.0, 128.0), (128.0, 128.0, 128.0)),
    "imagenet": (
        (0.485 * 255, 0.456 * 255, 0.406 * 255),
        (0.229 * 255, 0.224 * 255, 0.225 * 255),
    ),
    "symmetric": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
}
"""Mean and standard deviation per channel, in 0..255 pixels: network input is ``(pixel - mean) / std``.

``"symmetric"`` spans -1 to 1: the reference code's fine-tuning, for every variant, has it.
"""


def pixel_rescaling(normalization: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gives scale and offset per channel: network input is ``pixel * scale + offset``."""
    mean, deviation = PIXEL_STATISTICS[normalization]
    return tuple(1 / value for value in deviation), tuple(-middle / value for middle, value in zip(mean, deviation))


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """One stage of the network: ``repeats`` blocks of one kind.

    Attributes:
        kind: ``"mbconv"`` (depthwise) or ``"fused_mbconv"`` (full convolution).
        repeats: number of blocks, at least 1.
        kernel_size: side of the spatial kernel, pixels.
        stride: stride of the first block; the others have stride 1.
        expand_ratio: width of the hidden layer over ``input_filters``.
        input_filters: channels that enter the first block.
        output_filters: channels that leave every block.
        se_ratio: squeeze-and-excite width over the *block input* width; 0 means no squeeze-and-excite.
    """

    kind: BlockKind
    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    input_filters: int
    output_filters: int
    se_ratio: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("mbconv", "fused_mbconv"):
            raise ValueError(f"BlockSpec.kind is {self.kind!r}; use 'mbconv' or 'fused_mbconv'.")
        for field in ("repeats", "kernel_size", "stride", "expand_ratio", "input_filters", "output_filters"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"BlockSpec.{field} is {value!r}; it must be a whole number of at least 1.")
        if not 0.0 <= self.se_ratio <= 1.0:
            raise ValueError(f"BlockSpec.se_ratio is {self.se_ratio!r}; it must lie in [0, 1], 0 for none.")

    @property
    def has_residual(self) -> bool:
        """Whether a block of this shape adds its input back: stride 1 and equal widths."""
        return self.stride == 1 and self.input_filters == self.output_filters

    @property
    def expanded_filters(self) -> int:
        """Channels of the hidden layer."""
        return self.input_filters * self.expand_ratio

    @property
    def squeezed_filters(self) -> int:
        """Channels of the squeeze-and-excite bottleneck: from the block's input width, at least 1; 0 for none."""
        return max(1, int(self.input_filters * self.se_ratio)) if self.se_ratio else 0


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A whole network, before width and depth scaling.

    Attributes:
        name: the model's name, such as ``"efficientnetv2-s"``.
        blocks: the stages, unscaled.
        width: multiplier of every channel count.
        depth: multiplier of every repeat count.
        head_filters: channels of the last 1x1 convolution, unscaled.
        train_size: largest training image, pixels (side of a square).
        eval_size: evaluation image, pixels.
        dropout_rate: dropout before the classifier at the end of training, in [0, 1).
        normalization: how 0..255 pixels become network input. ``"centered"``: ``(x - 128) / 128``;
            ``"imagenet"``: ``(x / 255 - mean) / std`` of ImageNet, per channel; ``"symmetric"``:
            ``(x - 127.5) / 127.5``.
        least_width: see ``round_filters``.
    """

    name: str
    blocks: tuple[BlockSpec, ...]
    width: float = 1.0
    depth: float = 1.0
    head_filters: int = 1280
    train_size: int = 224
    eval_size: int = 224
    dropout_rate: float = 0.2
    normalization: Normalization = "centered"
    least_width: float = 0.0

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError(f"ModelSpec {self.name!r} has no blocks.")
        if not (0 < self.width < math.inf and 0 < self.depth < math.inf):
            raise ValueError(f"ModelSpec {self.name!r}: width {self.width} and depth {self.depth} must be positive.")
        for field in ("head_filters", "train_size", "eval_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"ModelSpec {self.name!r}: {field} is {value!r}; it must be a whole number, at least 1."
                )
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"ModelSpec {self.name!r}: dropout_rate is {self.dropout_rate}; it must lie in [0, 1).")
        if self.normalization not in PIXEL_STATISTICS:
            raise ValueError(
                f"ModelSpec {self.name!r}: normalization is {self.normalization!r}; use one of "
                f"{', '.join(PIXEL_STATISTICS)}."
            )
        for before, after in zip(self.blocks, self.blocks[1:]):
            if before.output_filters != after.input_filters:
                raise ValueError(
                    f"ModelSpec {self.name!r}: a stage gives {before.output_filters} channels but the next takes "
                    f"{after.input_filters}; make them equal."
                )

    @property
    def stem_filters(self) -> int:
        """Channels of the stem, unscaled: what the first stage takes."""
        return self.blocks[0].input_filters

    def to_json(self) -> str:
        """The network as JSON, one line for each stage; ``from_json`` reads it back."""
        fields = dataclasses.asdict(self)
        stages = ",\n".join(f"    {json.dumps(block)}" for block in fields.pop("blocks"))
        head = json.dumps(fields, indent=2)
        return f'{head[:-2]},\n  "blocks": [\n{stages}\n  ]\n}}\n'

    @staticmethod
    def from_json(text: str) -> ModelSpec:
        """Reads what ``to_json`` wrote; fields left out take their defaults.

        Raises:
            UsageError: for text that is not JSON, unknown or missing fields, or values that no network can have.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError(f"it is a {type(fields).__name__}, not an object with fields")
            blocks = tuple(_from_fields(BlockSpec, block, "blocks") for block in fields.get("blocks", ()))
            return _from_fields(ModelSpec, {**fields, "blocks": blocks}, "the network")
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"This is not the JSON of a ModelSpec: {error}. ModelSpec.to_json() and --mode=search write such."
            ) from error


@dataclasses.dataclass(frozen=True)
class KerasSpec:
    """A network that Keras or a function of one's own builds; only what training must know of it beforehand.

    Attributes:
        name: ``"keras:ResNet50"``, a name of ``tf.keras.applications``, or ``"keras:package.module:function"``.
        train_size: largest training image, pixels (side of a square).
        eval_size: evaluation image, pixels.
        dropout_rate: dropout before the classifier at the end of training, in [0, 1).
        normalization: see ``ModelSpec``; of a network that normalises pixels itself, it is not asked for.
    """

    name: str
    train_size: int = 224
    eval_size: int = 224
    dropout_rate: float = 0.2
    normalization: Normalization = "imagenet"


AnySpec = Union[ModelSpec, KerasSpec]
"""What can be trained."""


def _from_fields(kind: Any, fields: dict[str, Any], what: str) -> Any:
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := set(fields) - set(known):
        raise ValueError(f"{what} has the unknown field {min(unknown)!r}; known are {', '.join(known)}")
    return kind(**fields)


def round_filters(filters: int, width: float, least_width: float = 0.0) -> int:
    """Scales a channel count and rounds it to the nearest multiple of 8, at least 8.

    Args:
        filters: the unscaled count.
        width: multiplier.
        least_width: share of the scaled count that must be left after rounding, or 8 are added: 0.9 in the first code
            of V1 (tensorflow/tpu, ``models/official/efficientnet``), Keras and timm, as in MobileNet; 0 in the
            reference code.
    """
    scaled = filters * width
    rounded = max(DEPTH_DIVISOR, int(scaled + DEPTH_DIVISOR / 2) // DEPTH_DIVISOR * DEPTH_DIVISOR)
    return rounded if rounded >= least_width * scaled else rounded + DEPTH_DIVISOR


def round_repeats(repeats: int, depth: float) -> int:
    """Scales a repeat count, rounding up."""
    return math.ceil(depth * repeats)


@dataclasses.dataclass(frozen=True)
class ExpandedSpec:
    """A network block by block, after scaling.

    Attributes:
        stem_filters: channels of the stem.
        blocks: one entry per block, each with ``repeats == 1``.
        stage_ends: for each stage, the index of its last block.
        head_filters: channels of the last 1x1 convolution.
    """

    stem_filters: int
    blocks: tuple[BlockSpec, ...]
    stage_ends: tuple[int, ...]
    head_filters: int


def expand(spec: ModelSpec) -> ExpandedSpec:
    """Applies width and depth scaling and writes every repeat out as a block of its own."""

    def scaled(filters: int) -> int:
        return round_filters(filters, spec.width, spec.least_width)

    blocks: list[BlockSpec] = []
    stage_ends: list[int] = []
    for stage in spec.blocks:
        input_filters = scaled(stage.input_filters)
        output_filters = scaled(stage.output_filters)
        first = dataclasses.replace(stage, repeats=1, input_filters=input_filters, output_filters=output_filters)
        rest = dataclasses.replace(first, stride=1, input_filters=output_filters)
        blocks += [first] + [rest] * (round_repeats(stage.repeats, spec.depth) - 1)
        stage_ends.append(len(blocks) - 1)
    return ExpandedSpec(
        stem_filters=scaled(spec.stem_filters),
        blocks=tuple(blocks),
        stage_ends=tuple(stage_ends),
        head_filters=scaled(spec.head_filters),
    )


def drop_path_rates(num_blocks: int, final_rate: float) -> tuple[float, ...]:
    """Gives each block's stochastic-depth rate: linear from 0 in the first block towards ``final_rate``.

    Block ``i`` of ``n`` is dropped with probability ``final_rate * i / n``, so the last stays just below
    ``final_rate`` (reference code; the paper's section 5.1 gives survival 0.8, a final rate of 0.2).
    """
    if not 0.0 <= final_rate < 1.0:
        raise ValueError(f"The drop-path rate is {final_rate!r}; it must lie in [0, 1).")
    return tuple(final_rate * index / num_blocks for index in range(num_blocks))
