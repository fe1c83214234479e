"""Canonical names and shapes of a network's weights, independent of the file format. Needs no TensorFlow.

A canonical name consists of the role of a layer, its part, and the kind of weight: ``"stem/conv/kernel"``,
``"block_5/expand/norm/gamma"``, ``"block_5/squeeze_excite/reduce/bias"``, ``"classifier/kernel"``. It is the name of
the variable in a model of ``build_model`` without a ``name``. Every reader returns canonical names; no other code in
this package depends on a file format.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.architecture.parts import SQUEEZE_EXCITE, ConvPart, SqueezePart, parts_of
from effnetv2_keras.architecture.specs import BlockKind, BlockSpec, ModelSpec

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]

CLASSIFIER = "classifier/"
"""Prefix of the names of the classifier's weights; all other weights belong to the body."""

STEM_KERNEL = "stem/conv/kernel"
"""The only weight whose shape depends on the number of image channels."""

NORM_KINDS = ("gamma", "beta", "moving_mean", "moving_variance")
"""The weights of BatchNorm, in Keras' order."""

PREPROCESSING = "preprocessing/"
"""Prefix of the names of the statistics that V1's networks of Keras' layers normalize pixels with."""


@functools.cache
def _convs() -> dict[tuple[int, bool], tuple[str, ...]]:
    kinds: tuple[BlockKind, ...] = ("fused_mbconv", "mbconv")
    blocks = (parts_of(BlockSpec(kind, 1, 3, 1, expand, 8, 8)) for kind in kinds for expand in (1, 2))
    roles = [tuple(part.role for part in block if isinstance(part, ConvPart)) for block in blocks]
    return {(len(block), "depthwise" in block): block for block in roles}


def conv_parts(count: int, *, depthwise: bool) -> tuple[str, ...]:
    """Returns the names of a block's convolutions, without squeeze-and-excite, in the order of application.

    Args:
        count: number of convolutions.
        depthwise: whether one of them is depthwise.

    Returns:
        The names of the parts; empty if there is no block with these convolutions.
    """
    return _convs().get((count, depthwise), ())


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The contents of a file of weights.

    Attributes:
        format: description of the file format.
        weights: weights by canonical name, in TensorFlow's layout: kernels ``[height, width, in, out]``, depthwise
            kernels ``[height, width, channels, 1]``, dense kernels ``[in, out]``. A weight that does not fit the model
            is not read; zeros of its shape stand for it.
        skipped: names, as in the file, of everything else in it, such as optimizer slots.
        warnings: reasons why the weights may be those of another network, although names and shapes fit.
        facts: settings of the network that the file names; see ``facts``.
    """

    format: str
    weights: Mapping[str, Array]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def body_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Returns the shapes of all weights except the classifier's, by canonical name, for images with 3 channels."""
    expanded = specs.expand(spec)
    shapes = _conv_norm("stem", (3, 3, 3, expanded.stem_filters))
    for index, block in enumerate(expanded.blocks):
        shapes.update({f"block_{index}/{name}": shape for name, shape in _block_shapes(block).items()})
    shapes.update(_conv_norm("head", (1, 1, expanded.blocks[-1].output_filters, expanded.head_filters)))
    return shapes


def variant_of(shapes: Mapping[str, Shape]) -> str | None:
    """Returns the variant with these weight shapes, or None; ignores the classifier and the number of channels."""
    return _variants().get(_fingerprint(shapes))


def _block_shapes(block: BlockSpec) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for part in parts_of(block):
        if isinstance(part, SqueezePart):
            for name, shape in (("reduce", (part.filters, part.squeezed)), ("expand", (part.squeezed, part.filters))):
                shapes[f"{SQUEEZE_EXCITE}/{name}/kernel"] = (1, 1, *shape)
                shapes[f"{SQUEEZE_EXCITE}/{name}/bias"] = shape[1:]
        else:
            outputs = 1 if part.is_depthwise else part.filters
            shapes.update(_conv_norm(part.role, (part.kernel_size, part.kernel_size, part.inputs, outputs)))
    return shapes


def _conv_norm(name: str, kernel: Shape) -> dict[str, Shape]:
    kind = "depthwise_kernel" if name == "depthwise" else "kernel"
    channels = kernel[2:3] if name == "depthwise" else kernel[3:]
    return {f"{name}/conv/{kind}": kernel, **{f"{name}/norm/{kind}": channels for kind in NORM_KINDS}}


def _fingerprint(shapes: Mapping[str, Shape]) -> frozenset[tuple[str, Shape]]:
    return frozenset(
        (name, shape[3:] if name == STEM_KERNEL else tuple(shape))
        for name, shape in shapes.items()
        if not name.startswith((CLASSIFIER, PREPROCESSING))
    )


@functools.cache
def _variants() -> dict[frozenset[tuple[str, Shape]], str]:
    return {_fingerprint(body_shapes(spec)): name for name, spec in variants.MODELS.items()}
