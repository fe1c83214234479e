"""Table 3 of the paper: parameters and FLOPs of V1-B4 with Fused-MBConv in stages 1-3, 1-5 and 1-7.

The paper does not say which kernel a fused stage has, whether it keeps squeeze-and-excite, whether its expansion is
V1's 6 or V2's 4, and whether stage 1, whose expansion is 1, is fused. The printed table therefore has four versions of
each row:

- the paper's figures;
- the plain rule (``fuse``), which keeps kernel and expansion and removes squeeze-and-excite;
- the plain rule with kernels of 3 pixels;
- the combination of choices, made separately for each stage, that is nearest to the paper.

    PYTHONPATH=. python benchmarks/ablations/table_3_counts.py
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping

from effnetv2_keras.architecture.fusing import fuse
from effnetv2_keras.architecture.profile import StageRow, stage_table
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec
from effnetv2_keras.architecture.variants import get_spec

IMAGE_SIZE = 380
"""Side of the images, pixels: the evaluation size of V1-B4."""

NOT_FUSED = "-"


@dataclasses.dataclass(frozen=True)
class Figures:
    """Trainable parameters, millions, and FLOPs, billions (``profile.count_profiler_flops``)."""

    parameters: float
    flops: float

    def distance(self, other: Figures) -> float:
        """Returns the larger of the two differences, in the units of the table."""
        return max(abs(self.parameters - other.parameters), abs(self.flops - other.flops))


PAPER = {0: Figures(19.3, 4.5), 3: Figures(20.0, 7.5), 5: Figures(43.4, 21.3), 7: Figures(132.0, 34.4)}
"""Table 3, by last fused stage; 0: none."""


def total(rows: Iterable[StageRow]) -> Figures:
    rows = tuple(rows)
    parameters = sum(row.parameters.trainable for row in rows)
    return Figures(parameters / 1e6, sum(row.profiler_flops for row in rows) / 1e9)


def count(spec: ModelSpec) -> Figures:
    return total(stage_table(spec, image_size=IMAGE_SIZE))


def plain(last: int, kernel_size: int | None = None) -> Figures:
    """Returns the figures with stages 1 to ``last`` fused by the plain rule."""
    return count(fuse(get_spec("efficientnet-b4"), range(1, last + 1), kernel_size=kernel_size))


def _ways(stage: int, block: BlockSpec) -> dict[str, BlockSpec]:
    """Returns the possible versions of a fused stage, by a name such as ``k3 e6 SE``."""
    ways = {NOT_FUSED: block} if stage == 1 else {}
    kernels, expansions = {3, block.kernel_size}, {4, block.expand_ratio}
    for kernel, expansion, se_ratio in itertools.product(sorted(kernels), sorted(expansions), (0.0, block.se_ratio)):
        ways[f"k{kernel} e{expansion}{' SE' if se_ratio else ''}"] = dataclasses.replace(
            block, kind="fused_mbconv", kernel_size=kernel, expand_ratio=expansion, se_ratio=se_ratio
        )
    return ways


@functools.lru_cache(maxsize=1)
def _costs() -> tuple[Figures, tuple[Mapping[str, Figures], ...], tuple[Figures, ...]]:
    """Returns the figures of stem and head, of each version of each fused stage, and of each stage without fusing.

    The figures of a stage do not depend on the other stages.
    """
    spec = get_spec("efficientnet-b4")
    stem, *own, head = stage_table(spec, image_size=IMAGE_SIZE)
    fused = []
    for stage, block in enumerate(spec.blocks, 1):
        costs = {}
        for name, way in _ways(stage, block).items():
            changed = (*spec.blocks[: stage - 1], way, *spec.blocks[stage:])
            costs[name] = total([stage_table(dataclasses.replace(spec, blocks=changed), image_size=IMAGE_SIZE)[stage]])
        fused.append(costs)
    return total([stem, head]), tuple(fused), tuple(total([row]) for row in own)


def with_ways(ways: tuple[str, ...]) -> Figures:
    """Returns the figures of the network whose first stages have the named versions."""
    rest, fused, own = _costs()
    stages = (rest, *(costs[way] for costs, way in zip(fused, ways)), *own[len(ways) :])
    return Figures(sum(stage.parameters for stage in stages), sum(stage.flops for stage in stages))


def nearest(last: int) -> tuple[tuple[str, ...], Figures]:
    """Returns the versions of stages 1 to ``last`` that are nearest to the paper, and their figures; tries all."""
    _, fused, _ = _costs()
    best = min(itertools.product(*fused[:last]), key=lambda ways: with_ways(ways).distance(PAPER[last]))
    return best, with_ways(best)


def nearest_to_all() -> tuple[tuple[str, ...], float]:
    """Returns the versions of the seven stages with the smallest maximum distance to the paper, and this distance.

    The maximum is over the three rows of fused networks.
    """
    _, fused, _ = _costs()
    rows = [last for last in PAPER if last]

    def worst(ways: tuple[str, ...]) -> float:
        return max(with_ways(ways[:last]).distance(PAPER[last]) for last in rows)

    best = min(itertools.product(*fused), key=worst)
    return best, worst(best)


def table() -> str:
    """Returns the table in Markdown: each row in its four versions, with the differences to the paper."""
    lines = ["| fused stages | count | parameters, M | FLOPs, G | fused how, from stage 1 |", "|---|---|---|---|---|"]
    for last, paper in PAPER.items():
        stages = f"1-{last}" if last else "none"
        rows = {"paper": (paper, ""), "plain rule": (plain(last), "")}
        if last:
            rows["plain rule, 3x3"] = plain(last, kernel_size=3), ""
            ways, figures = nearest(last)
            rows["nearest"] = figures, ", ".join(ways)
        for which, (figures, how) in rows.items():
            cells = [f"{figures.parameters:.1f}", f"{figures.flops:.1f}"]
            if which != "paper":
                cells = [
                    f"{value:.2f} ({round(value - printed, 2) + 0.0:+.2f})"  # + 0.0 turns -0.00 into 0.00
                    for value, printed in ((figures.parameters, paper.parameters), (figures.flops, paper.flops))
                ]
            lines.append(f"| {stages} | {which} | {' | '.join(cells)} | {how} |")
    return "\n".join(lines)


def main() -> None:
    print(table())
    ways, distance = nearest_to_all()
    print(f"With the same versions in all three rows, the largest difference is {distance:.2f}: {', '.join(ways)}.")


if __name__ == "__main__":
    main()
