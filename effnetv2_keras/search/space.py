"""The search space of section 3.3 of the paper: stage by stage, factorised (no TensorFlow).

Each stage of a backbone chooses its operator, number of layers, kernel size and expansion ratio; channels and strides
are the backbone's, which the paper takes from EfficientNet. There is no pooling skip. As in Table 4, MBConv has
squeeze-and-excite and Fused-MBConv has none.
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
"""A network of the space: what is chosen for each decision, such as ``{"stage1.operator": "mbconv", ...}``."""

SE_RATIO = 0.25
"""Squeeze-and-excite of an MBConv whose stage has none in the backbone (Table 4)."""

_FIELDS = {"operator": "kind", "layers": "repeats", "kernel": "kernel_size", "expansion": "expand_ratio"}


def unscaled(spec: ModelSpec) -> ModelSpec:
    """Writes a network's width and depth into its stages: the same network, with multipliers of 1."""
    expanded = expand(spec)
    blocks, start = [], 0
    for end in expanded.stage_ends:
        blocks.append(dataclasses.replace(expanded.blocks[start], repeats=end + 1 - start))
        start = end + 1
    return dataclasses.replace(
        spec, blocks=tuple(blocks), width=1.0, depth=1.0, head_filters=expanded.head_filters, least_width=0.0
    )


class SearchSpace:
    """The networks that differ from a backbone in what the stages may choose.

    Args:
        backbone: gives channels, strides, head, sizes and the number of layers that ``settings.layers`` counts from.
        settings: what there is to choose from.

    Attributes:
        backbone: the same network with multipliers of 1.
        decisions: what there is to choose from, by decision; stages count from 1 as in Table 4.

    Raises:
        UsageError: for a backbone that is no ``ModelSpec``.
    """

    def __init__(self, backbone: AnySpec, settings: SearchConfig) -> None:
        if not isinstance(backbone, ModelSpec):
            raise UsageError(
                f"{backbone.name} has no stages of blocks to choose; take another --model_name as the backbone: one of "
                "the EfficientNets, or the .json of a ModelSpec."
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
        """Number of points."""
        return math.prod(len(choices) for choices in self.decisions.values())

    def spec(self, point: Point) -> ModelSpec:
        """Gives the network of a point; its name follows from its stages, and equal networks have equal names.

        Raises:
            UsageError: if the point lacks a decision, or makes one that this space does not offer.
        """
        for decision, choices in self.decisions.items():
            if point.get(decision) not in choices:
                raise UsageError(
                    f"{decision} is {point.get(decision)!r}; this space offers {', '.join(map(str, choices))}."
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
        """Gives the point of a network, the inverse of ``spec``.

        Raises:
            UsageError: if the network is none of this space.
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
                f"{spec.name} is no network of the space around {self.backbone.name}: stages, channels, strides, "
                "squeeze-and-excite, head and sizes must be the backbone's."
            )
        return point

    def smallest(self, count: Callable[[ModelSpec], float]) -> ModelSpec:
        """Finds the network of the space for which ``count``, a sum over the stages, is least.

        Channels and strides are fixed, so that no stage's choice changes what another one counts.
        """
        point = {decision: choices[0] for decision, choices in self.decisions.items()}
        for number in range(1, len(self.backbone.blocks) + 1):
            own = [name for name in self.decisions if name.startswith(f"stage{number}.")]
            rows = [dict(zip(own, row)) for row in itertools.product(*(self.decisions[name] for name in own))]
            point |= min(rows, key=lambda row: count(self.spec({**point, **row})))
        return self.spec(point)
