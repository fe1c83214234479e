"""What a network's weights are called and how large they are, whatever file they come from (no TensorFlow).

A canonical name is the role of a layer, its part, and the kind of number: ``"stem/conv/kernel"``,
``"block_5/expand/norm/gamma"``, ``"block_5/squeeze_excite/reduce/bias"``, ``"classifier/kernel"``. It is the name of
the variable in a model that ``build_model`` made without a name. Every reader of a format speaks it, and nothing else
of this package knows a format.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]

CLASSIFIER = "classifier/"
"""What the names of the classifier's weights begin with; all others are the body's."""

STEM_KERNEL = "stem/conv/kernel"
"""The only weight whose shape depends on the channels of the images."""

NORM_KINDS = ("gamma", "beta", "moving_mean", "moving_variance")
"""BatchNorm's weights, in Keras' order."""

_CONVS = {
    (1, False): ("project",),
    (2, False): ("expand", "project"),
    (2, True): ("depthwise", "project"),
    (3, True): ("expand", "depthwise", "project"),
}


def conv_parts(count: int, *, depthwise: bool) -> tuple[str, ...]:
    """Names a block's convolutions, squeeze-and-excite aside, in the order in which they are applied.

    Args:
        count: how many there are.
        depthwise: whether one of them is depthwise.

    Returns:
        The parts' names; none if no block is made like that.
    """
    return _CONVS.get((count, depthwise), ())


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """What a reader found in a file.

    Attributes:
        format: the file's, in words.
        weights: by canonical name, in TensorFlow's layout: kernels ``[height, width, in, out]``, depthwise
            ``[height, width, channels, 1]``, dense ``[in, out]``.
        skipped: the file's own names of everything else in it, such as optimizer slots.
    """

    format: str
    weights: Mapping[str, Array]
    skipped: tuple[str, ...]


def body_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Gives the shapes of all weights but the classifier's, by canonical name, for images of 3 channels."""
    expanded = specs.expand(spec)
    shapes = _conv_norm("stem", (3, 3, 3, expanded.stem_filters))
    for index, block in enumerate(expanded.blocks):
        shapes.update({f"block_{index}/{name}": shape for name, shape in _block_shapes(block).items()})
    shapes.update(_conv_norm("head", (1, 1, expanded.blocks[-1].output_filters, expanded.head_filters)))
    return shapes


def variant_of(shapes: Mapping[str, Shape]) -> str | None:
    """Finds the named variant with exactly these shapes; the classifier and the images' channels do not count."""
    return _variants().get(_fingerprint(shapes))


def _block_shapes(block: BlockSpec) -> dict[str, Shape]:
    side, taken, hidden, given = block.kernel_size, block.input_filters, block.expanded_filters, block.output_filters
    shapes: dict[str, Shape] = {}
    fused = block.kind == "fused_mbconv"
    if block.expand_ratio != 1:
        shapes.update(_conv_norm("expand", (side, side, taken, hidden) if fused else (1, 1, taken, hidden)))
    if not fused:
        shapes.update(_conv_norm("depthwise", (side, side, hidden, 1)))
    if block.se_ratio:
        squeezed = block.squeezed_filters
        for name, shape in (("reduce", (hidden, squeezed)), ("expand", (squeezed, hidden))):
            shapes[f"squeeze_excite/{name}/kernel"] = (1, 1, *shape)
            shapes[f"squeeze_excite/{name}/bias"] = shape[1:]
    side = side if fused and block.expand_ratio == 1 else 1
    return {**shapes, **_conv_norm("project", (side, side, hidden, given))}


def _conv_norm(name: str, kernel: Shape) -> dict[str, Shape]:
    kind = "depthwise_kernel" if name == "depthwise" else "kernel"
    channels = kernel[2:3] if name == "depthwise" else kernel[3:]
    return {f"{name}/conv/{kind}": kernel, **{f"{name}/norm/{kind}": channels for kind in NORM_KINDS}}


def _fingerprint(shapes: Mapping[str, Shape]) -> frozenset[tuple[str, Shape]]:
    return frozenset(
        (name, shape[3:] if name == STEM_KERNEL else tuple(shape))
        for name, shape in shapes.items()
        if not name.startswith(CLASSIFIER)
    )


@functools.cache
def _variants() -> dict[frozenset[tuple[str, Shape]], str]:
    return {_fingerprint(body_shapes(spec)): name for name, spec in variants.MODELS.items()}
