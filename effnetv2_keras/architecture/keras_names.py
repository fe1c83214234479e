"""The names and conventions of ``tf.keras.applications``' EfficientNets, V1 and V2. Needs no TensorFlow.

Source: keras-team/keras, ``keras/src/applications/efficientnet.py`` and ``efficientnet_v2.py``. Keras numbers stages
from 1 and the blocks of a stage by letters: ``block4b_expand_conv``. The names of this package number the blocks of the
whole network from 0: ``"block_6/expand/conv"``; see ``weights/layout.py``.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Iterable, Sequence

from effnetv2_keras.architecture.specs import BlockSpec, ExpandedSpec, ModelSpec
from effnetv2_keras.errors import UsageError

OF_ENDS = {
    "stem/conv": "stem_conv",
    "stem/norm": "stem_bn",
    "head/conv": "top_conv",
    "head/norm": "top_bn",
    "classifier": "predictions",
}
"""Keras' names of the layers with weights outside the blocks, by their name here."""

OF_PARTS = {
    "expand/conv": "expand_conv",
    "expand/norm": "expand_bn",
    "depthwise/conv": "dwconv2",  # "dwconv" in V1
    "depthwise/norm": "bn",
    "squeeze_excite/reduce": "se_reduce",
    "squeeze_excite/expand": "se_expand",
    "project/conv": "project_conv",
    "project/norm": "project_bn",
}
"""Ends of Keras' names of the layers with weights inside a block, by their name here."""

ACTIVATIONS = {"expand": "expand_activation", "depthwise": "activation", "project": "project_activation"}
"""Ends of Keras' names of the activation after each convolution of a block."""

_ENDS = {name: place for place, name in OF_ENDS.items()}
_PARTS = {**{name: place for place, name in OF_PARTS.items()}, "dwconv": "depthwise/conv"}
_BLOCK = re.compile(r"(.*_)?block(\d+)([a-z]+)_(\w+)")
_OUTSIDE = re.compile(r"(.*_)?(?:(stem)|(top)|(avg|max)_pool|(predictions))(?:_(\w+))?")
_PREPROCESSING = re.compile(r"(?:rescaling|normalization)(?:_\d+)?")
_V1_NAME = re.compile(r"efficientnet-(b\d|l2)(-keras)?")


@dataclasses.dataclass(frozen=True)
class Style:
    """What differs between the V1 and V2 networks of Keras, besides their blocks.

    Attributes:
        is_v1: whether the network is in V1's style: an adaptable Normalization layer, and explicit padding before
            convolutions of stride 2.
    """

    is_v1: bool

    @property
    def depthwise(self) -> str:
        """End of the name of a depthwise convolution."""
        return "dwconv" if self.is_v1 else OF_PARTS["depthwise/conv"]


def style_of(variant: str | None) -> Style:
    """Returns the style of a variant: V1's for its variants, V2's for all others and for networks without a name."""
    return Style(is_v1=bool(_V1_NAME.fullmatch(variant or "")))


def model_name(spec: ModelSpec) -> str:
    """Returns the name of Keras' model of a variant: ``"efficientnetv2-s"``, but ``"efficientnetb0"`` in V1."""
    return spec.name.replace("-keras", "").replace("-", "") if style_of(spec.name).is_v1 else spec.name


def stage_ends_of(blocks: tuple[BlockSpec, ...]) -> tuple[int, ...]:
    """Returns the index of the last block of each stage, for blocks as in ``ExpandedSpec``.

    A stage goes on as long as a block repeats the one before it, with stride 1 and as many input as output channels.
    """

    def ends(index: int) -> bool:
        repeated = dataclasses.replace(blocks[index], stride=1, input_filters=blocks[index].output_filters)
        return blocks[index + 1 : index + 2] != (repeated,)

    return tuple(filter(ends, range(len(blocks))))


def block_prefixes(stage_ends: Sequence[int]) -> list[str]:
    """Returns the beginnings of the names of each block's layers: ``"block1a_"``, ``"block2a_"``, ``"block2b_"``, ...

    Keras has no network with more than 26 blocks in a stage. Letters go on with ``aa``, ``ab``, ... there.

    Args:
        stage_ends: index of the last block of each stage, as in ``ExpandedSpec``.
    """
    starts = [0, *(end + 1 for end in stage_ends)]
    return [
        f"block{stage}{_letters(index)}_"
        for stage, (start, end) in enumerate(zip(starts, stage_ends), start=1)
        for index in range(end + 1 - start)
    ]


def drop_rates(spec: ModelSpec, expanded: ExpandedSpec, rate: float) -> tuple[float, ...]:
    """Returns the stochastic-depth rate of each block as in Keras.

    Block ``i`` is dropped with probability ``rate * i / n``, where ``n`` is the number of blocks. In V2, Keras counts
    ``n`` before depth scaling, so that the last rates of B1, B2 and B3 are above ``rate``.

    Args:
        spec: the network.
        expanded: the same network after scaling.
        rate: the rate that the deepest block would have, in [0, 1).

    Raises:
        UsageError: if the rate of a block is not below 1.
    """
    blocks = len(expanded.blocks)
    count = blocks if style_of(spec.name).is_v1 else sum(stage.repeats for stage in spec.blocks)
    rates = tuple(rate * index / count for index in range(blocks))
    if not 0 <= rate < 1:
        raise UsageError(f"drop_path_rate is {rate}, but must be in [0, 1).")
    if rates[-1] >= 1:
        raise UsageError(
            f"drop_path_rate is {rate}, so the deepest of {blocks} blocks has the rate {rates[-1]:.3g}, but it must be "
            "in [0, 1). Pass a smaller rate."
        )
    return rates


def normalizes_with_statistics(spec: ModelSpec) -> bool:
    """Returns whether Keras' network has ImageNet's mean and variance as constants: V2 B0 to B3."""
    return spec.normalization == "imagenet" and not style_of(spec.name).is_v1


def dropout_rate(spec: ModelSpec) -> float:
    """Returns the dropout before the classifier in Keras: 0.2 for all of V2, the variant's own in V1."""
    return spec.dropout_rate if style_of(spec.name).is_v1 else 0.2


def places(names: Iterable[str]) -> dict[str, str]:
    """Returns the names here of Keras' layers: ``"block_6/expand/conv"`` for ``"block4b_expand_conv"``.

    Layers with weights have the name of their place; others have only the role, such as ``"block_6"`` for
    ``"block4b_add"``. Layers that do not belong to the network are left out.

    Args:
        names: names of the layers of a model, in its order. If there are several networks with different prefixes, the
            last one is meant.
    """
    names = list(names)
    prefix = prefix_of(names)
    if prefix is None:
        return {}
    blocks = {name: match for name in names if (match := _BLOCK.fullmatch(name)) and (match[1] or "") == prefix}
    order = sorted({(int(match[2]), len(match[3]), match[3]) for match in blocks.values()})
    table = {}
    for name in names:
        if match := blocks.get(name):
            role = f"block_{order.index((int(match[2]), len(match[3]), match[3]))}"
            table[name] = f"{role}/{_PARTS[match[4]]}" if match[4] in _PARTS else role
        elif place := _outside(name, prefix):
            table[name] = place
    return table


def is_of_network(name: str) -> bool:
    """Returns whether a layer has the name of a layer of Keras' networks, with any prefix."""
    return bool(_BLOCK.fullmatch(name)) or name.endswith(("stem_conv", "stem_bn", "top_conv"))


def prefix_of(names: Iterable[str]) -> str | None:
    """Returns what precedes the names of Keras in a network's layers, or None if no layer is one of Keras' network."""
    found = [name for name in names if is_of_network(name)]
    stems = [name for name in found if name.endswith("stem_conv")] or found
    if not stems:
        return None
    match = _BLOCK.fullmatch(stems[-1])
    return (match[1] or "") if match else re.sub(r"(stem|top)_[a-z]+$", "", stems[-1])


def _outside(name: str, prefix: str) -> str | None:
    """Returns the place of a layer outside the blocks, or None."""
    if _PREPROCESSING.fullmatch(name):
        return "preprocessing"
    bare = name[len(prefix) :] if name.startswith(prefix) else ""
    if bare in _ENDS:
        return _ENDS[bare]
    match = _OUTSIDE.fullmatch(bare)
    if match is None or match[1]:
        return None
    if bare == "top_dropout":
        return "dropout"
    return "stem" if match[2] else "head" if match[3] else "pool" if match[4] and not match[6] else None


def _letters(index: int) -> str:
    """Returns a, b, ..., z, aa, ab, ... for 0, 1, ..., 25, 26, 27, ..."""
    head, last = divmod(index, 26)
    return (_letters(head - 1) if head else "") + string.ascii_lowercase[last]
