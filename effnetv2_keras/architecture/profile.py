"""Counts of parameters, multiply-adds and FLOPs, computed from the specification of a network (no TensorFlow)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from effnetv2_keras.architecture.parts import SqueezePart, parts_of
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec, expand

IMAGE_CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """The number of parameters of a model.

    Attributes:
        total: parameters of all variables.
        trainable: parameters that training updates. The others are BatchNorm's moving averages.
    """

    total: int
    trainable: int


@dataclasses.dataclass(frozen=True)
class StageRow:
    """One row of the table of a model: the columns of the paper's Table 4, and the counts of the stage.

    Attributes:
        operator: kind of block, such as ``"MBConv4, k3x3, SE0.25"``.
        stride: stride of the first layer of the stage, pixels; 1 in the last row, which pools.
        channels: output channels of the stage.
        layers: number of blocks; 1 for the stem and the head.
        output_size: side of the output feature map, pixels; in the last row, its side before pooling.
        parameters: parameters of the stage.
        macs: multiply-adds of the stage for one image.
        profiler_flops: FLOPs of the stage for one image, see ``count_profiler_flops``; not rounded, so it can end in
            .5.
    """

    operator: str
    stride: int
    channels: int
    layers: int
    output_size: int
    parameters: ParameterCount
    macs: int
    profiler_flops: float


@dataclasses.dataclass(frozen=True)
class _Op:
    """A convolution or dense layer with its bias or BatchNorm.

    Attributes:
        kernel_size: side of the kernel, pixels.
        inputs: input channels.
        outputs: output channels.
        positions: output pixels.
        bias: whether the layer has a bias; if not, BatchNorm follows.
        silu: whether the SiLU activation follows.
        pooled: numbers that a mean before the layer reads; 0 for no mean.
        added: numbers that an addition or product of feature maps after the layer returns; 0 for none.
    """

    kernel_size: int
    inputs: int
    outputs: int
    positions: int
    bias: bool = False
    silu: bool = True
    pooled: int = 0
    added: int = 0

    @property
    def profiler_flops(self) -> float:
        """Half of the float operations that the profiler counts, see ``count_profiler_flops``."""
        values = self.outputs * self.positions
        others = 2 * self.weights + self.bias * values + 2 * self.silu * values + self.added
        if self.pooled:
            others += self.pooled + self.inputs
        return self.weights * self.positions + others / 2

    @property
    def weights(self) -> int:
        return self.kernel_size**2 * self.inputs * self.outputs


def stage_table(
    spec: ModelSpec, *, image_size: int, num_classes: int = 1000, include_top: bool = True
) -> tuple[StageRow, ...]:
    """Returns one row of counts for the stem, each stage of the paper's Table 4, and the head.

    Args:
        spec: the network.
        image_size: side of the square images, pixels.
        num_classes: width of the classifier.
        include_top: whether the network has a classifier.

    Returns:
        The rows, in the order of the layers.

    Raises:
        ValueError: if the image size is not positive.
    """
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}; it must be at least 1 pixel.")
    expanded = expand(spec)
    size = _halve(image_size, 2)
    stem = _Op(3, IMAGE_CHANNELS, expanded.stem_filters, size**2)
    rows = [_row("Conv3x3", 2, expanded.stem_filters, 1, size, [stem])]
    start = 0
    for end in expanded.stage_ends:
        stage = expanded.blocks[start : end + 1]
        ops: list[_Op] = []
        for block in stage:
            ops += _block_ops(block, size)
            size = _halve(size, block.stride)
        rows.append(_row(_operator(stage[0]), stage[0].stride, stage[0].output_filters, len(stage), size, ops))
        start = end + 1
    head = [_Op(1, expanded.blocks[-1].output_filters, expanded.head_filters, size**2)]
    if include_top:
        pooled = size**2 * expanded.head_filters
        head.append(_Op(1, expanded.head_filters, num_classes, positions=1, bias=True, silu=False, pooled=pooled))
    name = "Conv1x1 & Pooling & FC" if include_top else "Conv1x1"
    return (*rows, _row(name, 1, expanded.head_filters, 1, size, head))


def count_parameters(spec: ModelSpec, *, num_classes: int = 1000, include_top: bool = True) -> ParameterCount:
    """Returns the number of parameters of the model that ``models.build_model`` builds with the same arguments."""
    table = stage_table(spec, image_size=spec.eval_size, num_classes=num_classes, include_top=include_top)
    return ParameterCount(
        total=sum(row.parameters.total for row in table), trainable=sum(row.parameters.trainable for row in table)
    )


def count_macs(spec: ModelSpec, *, image_size: int, num_classes: int = 1000) -> int:
    """Returns the multiply-adds of the convolutions and dense layers for one image: the paper's "FLOPs".

    Args:
        spec: the network.
        image_size: side of the square image, pixels.
        num_classes: width of the classifier.

    Raises:
        ValueError: if the image size is not positive.
    """
    return sum(row.macs for row in stage_table(spec, image_size=image_size, num_classes=num_classes))


def count_profiler_flops(spec: ModelSpec, *, image_size: int, num_classes: int = 1000) -> int:
    """Returns the "FLOPs" that the reference code prints: half the float operations that TensorFlow's profiler counts.

    The profiler counts these float operations:

    - two for each multiply-add;
    - one for each bias, each residual sum and each product with a squeeze-and-excite gate;
    - two for each SiLU (``x * sigmoid(1 * x)`` has two products);
    - one for each number that a mean reads, and one for each that it returns;
    - two for each weight of a convolution or dense layer, because the same graph scales and shifts its random initial
      value.

    It counts nothing for sigmoid and BatchNorm. Source: the statistics that TensorFlow registers in
    ``tensorflow/python/profiler/internal/flops_registry.py`` and ``nn_ops.py``, and the figures that the reference
    code prints for its eighteen variants.

    Args:
        spec: the network.
        image_size: side of the square image, pixels.
        num_classes: width of the classifier.

    Raises:
        ValueError: if the image size is not positive.
    """
    table = stage_table(spec, image_size=image_size, num_classes=num_classes)
    return int(sum(row.profiler_flops for row in table))


def _halve(size: int, stride: int) -> int:
    """Returns the side of the output of a convolution with "same" padding, pixels."""
    return -(-size // stride)


def _operator(block: BlockSpec) -> str:
    family = "MBConv" if block.kind == "mbconv" else "Fused-MBConv"
    squeeze = f", SE{block.se_ratio:g}" if block.se_ratio else ""
    return f"{family}{block.expand_ratio}, k{block.kernel_size}x{block.kernel_size}{squeeze}"


def _block_ops(block: BlockSpec, size: int) -> Iterator[_Op]:
    """Yields the operations of one block whose input has side ``size``, pixels."""
    parts = parts_of(block)
    for part in parts:
        if isinstance(part, SqueezePart):
            gated = size**2 * part.filters
            yield _Op(1, part.filters, part.squeezed, positions=1, bias=True, pooled=gated)
            yield _Op(1, part.squeezed, part.filters, positions=1, bias=True, silu=False, added=gated)
            continue
        after = _halve(size, part.stride)
        inputs = 1 if part.is_depthwise else part.inputs
        added = after**2 * part.filters if part is parts[-1] and block.has_residual else 0
        yield _Op(part.kernel_size, inputs, part.filters, after**2, silu=part.activates, added=added)
        size = after


def _row(operator: str, stride: int, channels: int, layers: int, output_size: int, ops: list[_Op]) -> StageRow:
    # Per channel, a bias has one trainable number. BatchNorm has two (gamma and beta) and two moving averages.
    trainable = sum(op.weights + op.outputs * (1 if op.bias else 2) for op in ops)
    moving = sum(0 if op.bias else 2 * op.outputs for op in ops)
    parameters = ParameterCount(total=trainable + moving, trainable=trainable)
    macs = sum(op.weights * op.positions for op in ops)
    profiler_flops = sum(op.profiler_flops for op in ops)
    return StageRow(operator, stride, channels, layers, output_size, parameters, macs, profiler_flops)
