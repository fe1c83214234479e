"""EfficientNetV2 and V1 networks as data classes, their JSON, and the rules of width and depth (no TensorFlow)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, Union

from effnetv2_keras.basics import limits
from effnetv2_keras.basics.small_files import parse_json
from effnetv2_keras.errors import UsageError

BlockKind = Literal["mbconv", "fused_mbconv"]
Normalization = Literal["centered", "imagenet", "symmetric", "caffe"]

DEPTH_DIVISOR = 8
"""Every scaled width is a multiple of this number and at least this number (reference code, ``round_filters``)."""

PIXEL_STATISTICS: dict[Normalization, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "centered": ((128.0, 128.0, 128.0), (128.0, 128.0, 128.0)),
    "imagenet": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "symmetric": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation per channel for pixels in 0..255: network input is ``(pixel - mean) / std``.

The reference code fine-tunes every variant with ``"symmetric"``. Keras' ResNet50 was trained with ``"caffe"``.
"""


def pixel_rescaling(normalization: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns scale and offset per channel: network input is ``pixel * scale + offset``, with pixels in 0..255."""
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
        expand_ratio: channels of the hidden layer divided by ``input_filters``.
        input_filters: input channels of the first block.
        output_filters: output channels of every block.
        se_ratio: channels of the squeeze-and-excite bottleneck divided by the *block input* channels, in [0, 1]; 0
            means no squeeze-and-excite.

    Raises:
        ValueError: if a value is out of range.
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
        whole = ("repeats", "kernel_size", "stride", "expand_ratio", "input_filters", "output_filters")
        _check_whole(self, whole, "BlockSpec.")
        limits.check("BlockSpec.kernel_size", self.kernel_size, limits.LARGEST_KERNEL)
        if not 0.0 <= self.se_ratio <= 1.0:
            raise ValueError(f"BlockSpec.se_ratio is {self.se_ratio!r}; it must lie in [0, 1]; 0 for none.")

    @property
    def has_residual(self) -> bool:
        """Whether a block adds its input to its output: stride 1 and equal numbers of channels."""
        return self.stride == 1 and self.input_filters == self.output_filters

    @property
    def expanded_filters(self) -> int:
        """Channels of the hidden layer."""
        return self.input_filters * self.expand_ratio

    @property
    def squeezed_filters(self) -> int:
        """Channels of the squeeze-and-excite bottleneck: ``se_ratio`` of the input channels, at least 1; 0 for none."""
        return max(1, int(self.input_filters * self.se_ratio)) if self.se_ratio else 0


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A whole network, before width and depth scaling.

    Attributes:
        name: name of the model, such as ``"efficientnetv2-s"``.
        blocks: the stages, unscaled.
        width: multiplier of every channel count.
        depth: multiplier of every repeat count.
        head_filters: channels of the last 1x1 convolution, unscaled.
        train_size: side of the largest (square) training image, pixels, in the reference code. The recipes use Table 6
            of the paper for the variants that it has.
        eval_size: side of the (square) evaluation image, pixels.
        dropout_rate: dropout before the classifier, in [0, 1), in the reference code; ``build_model`` uses it. The
            recipes end at that of Table 6 of the paper for the variants that it has.
        normalization: how 0..255 pixels become network input. ``"centered"``: ``(x - 128) / 128``;
            ``"imagenet"``: ``(x / 255 - mean) / std`` of ImageNet, per channel; ``"symmetric"``:
            ``(x - 127.5) / 127.5``.
        least_width: see ``round_filters``.

    Raises:
        ValueError: if a value is out of range, or the channels of consecutive stages differ.
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
        if not isinstance(self.name, str) or not self.blocks:
            raise ValueError(f"ModelSpec {self.name!r} has no blocks or its name is no text; give both.")
        if not (0 < self.width < math.inf and 0 < self.depth < math.inf):
            raise ValueError(f"ModelSpec {self.name!r}: width {self.width} and depth {self.depth} must be positive.")
        _check_whole(self, ("head_filters", "train_size", "eval_size"), f"ModelSpec {self.name!r}: ")
        _check_scaled(self)
        for what in ("train_size", "eval_size"):
            limits.check(f"ModelSpec {self.name!r}: {what}", getattr(self, what), limits.LARGEST_IMAGE)
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"ModelSpec {self.name!r}: dropout_rate is {self.dropout_rate}; it must lie in [0, 1).")
        if self.normalization not in PIXEL_STATISTICS:
            known = ", ".join(PIXEL_STATISTICS)
            raise ValueError(f"ModelSpec {self.name!r}: normalization is {self.normalization!r}; use one of {known}.")
        for before, after in zip(self.blocks, self.blocks[1:]):
            if before.output_filters != after.input_filters:
                raise ValueError(
                    f"ModelSpec {self.name!r}: a stage has {before.output_filters} output channels but the next has "
                    f"{after.input_filters} input channels; make them equal."
                )

    @property
    def stem_filters(self) -> int:
        """Channels of the stem, unscaled: the input channels of the first stage."""
        return self.blocks[0].input_filters

    def to_json(self) -> str:
        """Returns the network as JSON with one line per stage; ``from_json`` reads it."""
        fields = dataclasses.asdict(self)
        stages = ",\n".join(f"    {json.dumps(block)}" for block in fields.pop("blocks"))
        head = json.dumps(fields, indent=2)
        return f'{head[:-2]},\n  "blocks": [\n{stages}\n  ]\n}}\n'

    @staticmethod
    def from_json(text: str) -> ModelSpec:
        """Reads a network from JSON that ``to_json`` wrote; missing optional fields take their defaults.

        Raises:
            UsageError: if the text is not JSON, a field is unknown or missing, or a value is out of range.
        """
        try:
            fields = parse_json(text)
            blocks = tuple(_from_fields(BlockSpec, block, "blocks") for block in fields.get("blocks", ()))
            return _from_fields(ModelSpec, {**fields, "blocks": blocks}, "the network")
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(
                f"This is not the JSON of a ModelSpec: {str(error).rstrip('.')}. Use a file that ModelSpec.to_json() "
                "or --mode=search wrote."
            ) from error


@dataclasses.dataclass(frozen=True)
class KerasSpec:
    """A network built by Keras or by your own function; holds only what training must know before it is built.

    Attributes:
        name: ``"keras:NAME"``, where NAME is in ``tf.keras.applications``, such as ``"keras:ResNet50"``; or
            ``"keras:package.module:function"``.
        train_size: side of the largest (square) training image, pixels.
        eval_size: side of the (square) evaluation image, pixels.
        dropout_rate: dropout before the classifier at the end of training, in [0, 1).
        normalization: see ``ModelSpec``. It is not used for a network that normalizes pixels itself.
    """

    name: str
    train_size: int = 224
    eval_size: int = 224
    dropout_rate: float = 0.2
    normalization: Normalization = "imagenet"


AnySpec = Union[ModelSpec, KerasSpec]
"""Any network that can be trained."""


def _check_whole(spec: BlockSpec | ModelSpec, fields: tuple[str, ...], start: str) -> None:
    for field in fields:
        value = getattr(spec, field)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{start}{field} is {value!r}; it must be a whole number of at least 1.")


def _check_scaled(spec: ModelSpec) -> None:
    blocks = sum(block.repeats for block in spec.blocks)
    channels = max(
        spec.head_filters, spec.blocks[-1].output_filters, *(block.expanded_filters for block in spec.blocks)
    )
    for what, count, scale, most in (
        ("blocks", blocks, spec.depth, limits.MOST_BLOCKS),
        ("channels", channels, spec.width, limits.MOST_CHANNELS),
    ):
        limits.check(f"ModelSpec {spec.name!r}: the number of {what}", count, most)
        limits.check(f"ModelSpec {spec.name!r}: the scaled number of {what}", count * scale, most)


def _from_fields(kind: Any, fields: dict[str, Any], what: str) -> Any:
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := set(fields) - set(known):
        raise ValueError(f"{what} has the unknown field {min(unknown)!r}; known are {', '.join(known)}")
    return kind(**fields)


def round_filters(filters: int, width: float, least_width: float = 0.0) -> int:
    """Returns a channel count, scaled and rounded to the nearest multiple of 8; at least 8.

    Args:
        filters: the unscaled count.
        width: multiplier.
        least_width: smallest allowed ratio of the rounded to the scaled count. If rounding gives less, 8 are added. It
            is 0.9 in the first code of V1 (tensorflow/tpu, ``models/official/efficientnet``), Keras and timm, as in
            MobileNet; it is 0 in the reference code.
    """
    scaled = filters * width
    rounded = max(DEPTH_DIVISOR, int(scaled + DEPTH_DIVISOR / 2) // DEPTH_DIVISOR * DEPTH_DIVISOR)
    return rounded if rounded >= least_width * scaled else rounded + DEPTH_DIVISOR


def round_repeats(repeats: int, depth: float) -> int:
    """Returns a repeat count, scaled and rounded up."""
    return math.ceil(depth * repeats)


@dataclasses.dataclass(frozen=True)
class ExpandedSpec:
    """A network after scaling, block by block.

    Attributes:
        stem_filters: channels of the stem.
        blocks: one entry per block, each with ``repeats == 1``.
        stage_ends: index of the last block of each stage.
        head_filters: channels of the last 1x1 convolution.
    """

    stem_filters: int
    blocks: tuple[BlockSpec, ...]
    stage_ends: tuple[int, ...]
    head_filters: int


def expand(spec: ModelSpec) -> ExpandedSpec:
    """Returns the network after width and depth scaling, with a separate entry for each repeated block."""

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
    """Returns the stochastic-depth rate of each block, which rises linearly from 0 towards ``final_rate``.

    Block ``i`` of ``n``, counted from 0, is dropped with probability ``final_rate * i / n``, so the rate of the last
    block is just below ``final_rate`` (reference code). Section 5.1 of the paper gives a survival probability of 0.8,
    which is a final rate of 0.2.

    Raises:
        ValueError: if ``final_rate`` is not in [0, 1).
    """
    if not 0.0 <= final_rate < 1.0:
        raise ValueError(f"The drop-path rate is {final_rate!r}; it must lie in [0, 1).")
    return tuple(final_rate * index / num_blocks for index in range(num_blocks))
