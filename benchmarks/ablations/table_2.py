"""Table 2 of the paper: the effect of the training image size on accuracy and speed.

Training has one stage, and all networks are evaluated at the same size. The paper does not give an evaluation size;
here it is that of the network. At the paper's scale (EfficientNet V1-B6 at 512 and 380 px):
    PYTHONPATH=. python benchmarks/ablations/table_2.py --dataset_cfg=imagenet --data_dir=DIR

The paper's time ratio is computed from its images per second and TPU core, 42 and 76. Times are compared with those of
the first size.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness

PAPER = ({"top-1": 84.3, "images/s": 42, "time ratio": 1.0}, {"top-1": 84.6, "images/s": 76, "time ratio": 0.55})


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    model_name = harness.chosen_network(arguments, "efficientnet-b6")
    sizes = arguments.sizes or ((48, 32) if harness.is_demo(arguments) else (512, 380))
    settings: list[harness.Setting] = []
    for number, size in enumerate(sizes):
        changes = {"progressive.stages": 1, **harness.sizes(size, size)}
        paper = PAPER[number] if number < len(PAPER) else {}
        reference = settings[0].name if settings else None
        settings.append(harness.Setting(f"train size {size} px", model_name, changes, paper, reference))
    return settings


def main() -> None:
    parser = harness.make_parser("2", __doc__)
    parser.add_argument("--sizes", type=harness.numbers, default=(), help="px; the paper: 512,380; demo: 48,32")
    arguments = parser.parse_args()
    harness.report(arguments, "2", "train size", make_settings(arguments))


if __name__ == "__main__":
    main()
