"""The stage-based, factorized search space of section 3.3 of the paper (no TensorFlow).

The decisions are the operator, number of layers, kernel size and expansion ratio of each stage of a backbone. Channels
and strides are those of the backbone; the paper uses EfficientNet's. There are no pooling skip operations. As in Table
4, MBConv has squeeze-and-excite and Fused-MBConv does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Union

from effnetv2_keras.architecture.specs import AnySpec, BlockSpec, ModelSpec, expand
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import UsageError

Choice = Union[str, int]
Point = Mapping[str, Choice]
"""A network of the space: the choice for each decision, such as ``{"stage1.operator": "mbconv", ...}``."""

SE_RATIO = 0.25
"""Squeeze-and-excite ratio of MBConv in stages that have none in the backbone (Table 4)."""

_FIELDS = {"operator": "kind", "layers": "repeats", "kernel": "kernel_size", "expansion": "expand_ratio"}


def unscaled(spec: ModelSpec) -> ModelSpec:
    """Returns the same network with its width and depth applied to the stages, so that both multipliers are 1."""
    expanded = expand(spec)
    blocks, start = [], 0
    for end in expanded.stage_ends:
        blocks.append(dataclasses.replace(expanded.blocks[start], repeats=end + 1 - start))
        start = end + 1
    return dataclasses.replace(
        spec, blocks=tuple(blocks), width=1.0, depth=1.0, head_filters=expanded.head_filters, least_width=0.0
    )


class SearchSpace:
    """The networks that differ from a backbone only in the decisions of a search.

    Args:
        backbone: network with the channels, strides, head and sizes of all networks; ``settings.layers`` is relative to
            its numbers of layers.
        settings: the choices of each decision.

    Attributes:
        backbone: the backbone, with multipliers of 1.
        decisions: the choices of each decision, by name; stages are numbered from 1 as in Table 4.

    Raises:
        UsageError: if the backbone is not a ``ModelSpec``.
    """

    def __init__(self, backbone: AnySpec, settings: SearchConfig) -> None:
        if not isinstance(backbone, ModelSpec):
            raise UsageError(
                f"{backbone.name} has no stages of blocks to choose. Use another --model_name as the backbone: an "
                "EfficientNet, or the .json file of a ModelSpec."
            )
        self.backbone = unscaled(backbone)
        self.decisions: dict[str, tuple[Choice, ...]] = {}
        for number, block in enumerate(self.backbone.blocks, 1):
            layers = dict.fromkeys(max(1, block.repeats + offset) for offset in settings.layers)
            self.decisions[f"stage{number}.operator"] = settings.operators
            self.decisions[f"stage{number}.layers"] = tuple(layers)
            self.decisions[f"stage{number}.kernel"] = settings.kernels
            self.decisions[f"stage{number}.expansion"] = settings.expansions

    @property
    def size(self) -> int:
        """Number of networks in the space."""
        return math.prod(len(choices) for choices in self.decisions.values())

    def spec(self, point: Point) -> ModelSpec:
        """Returns the network of a point; its name is derived from its stages, so equal networks have equal names.

        Raises:
            UsageError: if a decision of the point is missing, or its choice is not in the space.
        """
        for decision, choices in self.decisions.items():
            if point.get(decision) not in choices:
                raise UsageError(
                    f"{decision} is {point.get(decision)!r}; use one of the choices of this space: "
                    f"{', '.join(map(str, choices))}."
                )
        blocks = [self._stage(number, block, point) for number, block in enumerate(self.backbone.blocks, 1)]
        spec = dataclasses.replace(self.backbone, name="", blocks=tuple(blocks))
        digest = hashlib.sha256(spec.to_json().encode()).hexdigest()
        return dataclasses.replace(spec, name=f"{self.backbone.name}-{digest[:10]}")

    def _stage(self, number: int, block: BlockSpec, point: Point) -> BlockSpec:
        chosen: dict[str, Any] = {field: point[f"stage{number}.{what}"] for what, field in _FIELDS.items()}
        se_ratio = (block.se_ratio or SE_RATIO) if chosen["kind"] == "mbconv" else 0.0
        return dataclasses.replace(block, se_ratio=se_ratio, **chosen)

    def point(self, spec: ModelSpec) -> dict[str, Choice]:
        """Returns the point of a network; the inverse of ``spec``.

        Raises:
            UsageError: if the network is not in the space.
        """
        spec = unscaled(spec)
        point: dict[str, Choice] = {
            f"stage{number}.{what}": getattr(block, field)
            for number, block in enumerate(spec.blocks, 1)
            for what, field in _FIELDS.items()
        }
        known = all(point.get(decision) in choices for decision, choices in self.decisions.items())
        if not known or dataclasses.replace(self.spec(point), name=spec.name) != spec:
            raise UsageError(
                f"{spec.name} is not in the search space around {self.backbone.name}: its stages must use choices of "
                "the space, and channels, strides, squeeze-and-excite, head and sizes must be those of the backbone."
            )
        return point

    def smallest(self, count: Callable[[ModelSpec], float]) -> ModelSpec:
        """Returns the network of the space with the smallest ``count``.

        Each stage is minimized separately, because channels and strides are fixed and the choices of a stage therefore
        do not change the count of another.

        Args:
            count: function of a network that is a sum over the stages, such as the number of parameters.
        """
        point = {decision: choices[0] for decision, choices in self.decisions.items()}
        for number in range(1, len(self.backbone.blocks) + 1):
            own = [name for name in self.decisions if name.startswith(f"stage{number}.")]
            rows = [dict(zip(own, row)) for row in itertools.product(*(self.decisions[name] for name in own))]
            point |= min(rows, key=lambda row: count(self.spec({**point, **row})))
        return self.spec(point)
