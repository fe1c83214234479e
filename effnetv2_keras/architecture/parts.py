"""The parts of a block, in the order of application. Every form of a network is made from this description.

The block layers (``models/blocks.py``), the networks of Keras' own layers (``models/flat.py``), the names of weights
and the counts of parameters read it. It needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Union

from effnetv2_keras.architecture.specs import BlockSpec

ConvRole = Literal["expand", "depthwise", "project"]

SQUEEZE_EXCITE = "squeeze_excite"
"""Role of squeeze-and-excite, as the name of its layer and in the names of its weights."""


@dataclasses.dataclass(frozen=True)
class ConvPart:
    """A convolution without bias, then BatchNorm, then the network's activation if ``activates``.

    Attributes:
        role: ``"expand"``, ``"depthwise"`` or ``"project"``; the name of the layer.
        kernel_size: side of the kernel, pixels.
        stride: stride, pixels; padding is "same".
        inputs: channels of the input.
        filters: channels of the output; of a depthwise convolution, those of the input.
        activates: whether the activation follows.
    """

    role: ConvRole
    kernel_size: int
    stride: int
    inputs: int
    filters: int
    activates: bool = True

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has a kernel of its own."""
        return self.role == "depthwise"


@dataclasses.dataclass(frozen=True)
class SqueezePart:
    """Squeeze-and-excite: a mean over the image, two 1x1 convolutions with bias, and a product.

    Attributes:
        filters: channels of input and output.
        squeezed: channels between the two convolutions.
    """

    filters: int
    squeezed: int


Part = Union[ConvPart, SqueezePart]


def parts_of(block: BlockSpec) -> tuple[Part, ...]:
    """Returns the parts between a block's input and its residual sum, in the order of application.

    The residual sum itself is ``block.has_residual``. ``"mbconv"`` expands with 1x1, filters each channel, squeezes and
    projects with 1x1 without activation. ``"fused_mbconv"`` has one full convolution instead of the expansion and the
    depthwise convolution. Without expansion (``expand_ratio`` 1), MBConv leaves the expansion out, and Fused-MBConv has
    only one convolution, which is called ``"project"`` and has the activation; squeeze-and-excite precedes it. Source:
    paper, figure 2; reference code.

    Args:
        block: one block, or a stage of which the first block is meant.
    """
    kernel, stride, hidden = block.kernel_size, block.stride, block.expanded_filters
    taken, given = block.input_filters, block.output_filters
    squeeze = (SqueezePart(hidden, block.squeezed_filters),) if block.se_ratio else ()
    if block.kind == "fused_mbconv":
        if block.expand_ratio == 1:
            return (*squeeze, ConvPart("project", kernel, stride, taken, given))
        return (
            ConvPart("expand", kernel, stride, taken, hidden),
            *squeeze,
            ConvPart("project", 1, 1, hidden, given, activates=False),
        )
    expand = (ConvPart("expand", 1, 1, taken, hidden),) if block.expand_ratio != 1 else ()
    return (
        *expand,
        ConvPart("depthwise", kernel, stride, hidden, hidden),
        *squeeze,
        ConvPart("project", 1, 1, hidden, given, activates=False),
    )
