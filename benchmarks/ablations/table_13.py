"""Table 13 of the paper: adaptive regularisation with progressive and with random resizing.

Vanilla is the same resizing with every regulariser at its final value throughout. At the paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_13.py --dataset_cfg=imagenet --data_dir=DIR

There random resizing draws a size every eight epochs (44 stages of 350 epochs), and the network is EfficientNetV2-M
unless one is named. Times are compared with those of progressive resizing without adaptive regularisation.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness

PAPER = {  # order of the sizes, adaptive: top-1 and its deviation
    ("rising", False): (84.3, 0.14), ("rising", True): (85.1, 0.07),
    ("random", False): (83.5, 0.11), ("random", True): (84.2, 0.10),
}  # fmt: skip


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    model_name = harness.chosen_network(arguments, "efficientnetv2-m")
    vanilla = harness.constant_regularisation(harness.base_config(arguments, model_name))
    draws = arguments.random_stages or (8 if harness.is_demo(arguments) else 44)
    sizes = harness.sizes(arguments.first_size, arguments.last_size)
    settings: list[harness.Setting] = []
    for (order, adaptive), (top1, deviation) in PAPER.items():
        random = {"progressive.order": order, "progressive.stages": draws} if order == "random" else {}
        changes = {**sizes, **random, **({} if adaptive else vanilla)}
        name = f"{'random' if random else 'progressive'} resizing, {'adaptive' if adaptive else 'vanilla'}"
        reference = settings[0].name if settings else None
        settings.append(harness.Setting(name, model_name, changes, {"top-1": top1, "±": deviation}, reference))
    return settings


def main() -> None:
    parser = harness.make_parser("13", __doc__)
    parser.add_argument("--random_stages", type=int, default=None, help="sizes drawn; the paper: 44, demo: 8")
    parser.add_argument("--first_size", type=int, default=None, help="px; None: the recipe's, demo: 24")
    parser.add_argument("--last_size", type=int, default=None, help="px; None: the recipe's, demo: 48")
    arguments = parser.parse_args()
    harness.report(arguments, "13", "adaptive regularisation", make_settings(arguments))


if __name__ == "__main__":
    main()
