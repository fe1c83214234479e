"""Table 13 of the paper: adaptive regularization with progressive and with random resizing.

"Vanilla" is the same resizing with every regularizer at its final value in all stages. At the paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_13.py --dataset_cfg=imagenet --data_dir=DIR

At that scale, random resizing draws a size every eight epochs (44 stages in 350 epochs), and the default network is
EfficientNetV2-M. Times are compared with those of progressive resizing without adaptive regularization.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness

PAPER = {  # order of the sizes, adaptive regularization: top-1 and its standard deviation
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
    parser.add_argument("--random_stages", type=int, default=None, help="sizes to draw; the paper: 44; demo: 8")
    parser.add_argument("--first_size", type=int, default=None, help="px; default: that of the recipe; demo: 24")
    parser.add_argument("--last_size", type=int, default=None, help="px; default: that of the recipe; demo: 48")
    arguments = parser.parse_args()
    harness.report(arguments, "13", "adaptive regularization", make_settings(arguments))


if __name__ == "__main__":
    main()
