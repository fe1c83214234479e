"""Table 14 of the paper: the number of stages and the first image size.

At the paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_14.py --dataset_cfg=imagenet --data_dir=DIR

At that scale, the default network is EfficientNetV2-S. Times are compared with those of the fewest stages and the
smallest first size.
"""

from __future__ import annotations

import argparse
import itertools

from benchmarks.ablations import harness

PAPER = {  # (first size, stages): hours, top-1
    (128, 4): (6.2, 83.24), (128, 8): (6.3, 83.11), (128, 16): (7.0, 83.20),
    (256, 4): (8.1, 83.15), (256, 8): (8.5, 83.07), (256, 16): (9.4, 83.23),
}  # fmt: skip


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    model_name = harness.chosen_network(arguments, "efficientnetv2-s")
    firsts = arguments.first_sizes or ((24, 40) if harness.is_demo(arguments) else (128, 256))
    settings: list[harness.Setting] = []
    for place, (which, count) in enumerate(itertools.product(range(len(firsts)), arguments.stages)):
        changes = {"progressive.stages": count, **harness.sizes(firsts[which], arguments.last_size)}
        hours, top1 = PAPER.get(((128, 256)[which], count), (0.0, 0.0)) if which < 2 else (0.0, 0.0)
        paper = {"top-1": top1, "hours": hours, "time ratio": round(hours / 6.2, 2)} if hours else {}
        reference = settings[0].name if place else None
        name = f"from {firsts[which]} px, {count} stages"
        settings.append(harness.Setting(name, model_name, changes, paper, reference))
    return settings


def main() -> None:
    parser = harness.make_parser("14", __doc__)
    parser.add_argument("--stages", type=harness.numbers, default=(4, 8, 16), help="numbers of stages")
    parser.add_argument("--first_sizes", type=harness.numbers, default=(), help="px; the paper: 128,256; demo: 24,40")
    parser.add_argument("--last_size", type=int, default=None, help="px; default: that of the recipe; demo: 48")
    arguments = parser.parse_args()
    harness.report(arguments, "14", "number of stages and first image size", make_settings(arguments))


if __name__ == "__main__":
    main()
