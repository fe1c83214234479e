"""Table 5 of the paper: the magnitude of RandAugment for small, medium and large images.

Training has one stage. At the paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_5.py --dataset_cfg=imagenet --data_dir=DIR

The paper does not name the network. At that scale, the default is EfficientNetV2-S. Times are compared with those of
the last size and the first magnitude.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness

MAGNITUDES, SIZES = (5, 10, 15), (128, 192, 300)
PAPER = ((78.3, 81.2, 82.5), (78.0, 81.6, 82.7), (77.7, 81.5, 83.2))
"""Top-1, percent; one row per magnitude, one column per size."""


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    model_name = harness.chosen_network(arguments, "efficientnetv2-s")
    sizes = arguments.sizes or ((24, 36, 48) if harness.is_demo(arguments) else SIZES)
    settings = []
    for row, magnitude in enumerate(arguments.magnitudes):
        for column, size in enumerate(sizes):
            changes = {
                "progressive.stages": 1,
                **harness.sizes(size, size),
                "progressive.randaug_magnitude.start": magnitude,
                "progressive.randaug_magnitude.end": magnitude,
            }
            in_paper = arguments.magnitudes == MAGNITUDES and len(sizes) == len(SIZES)
            paper = {"top-1": PAPER[row][column]} if in_paper else {}
            reference = f"magnitude {arguments.magnitudes[0]}, {sizes[-1]} px"
            settings.append(harness.Setting(f"magnitude {magnitude}, {size} px", model_name, changes, paper, reference))
    return settings


def main() -> None:
    parser = harness.make_parser("5", __doc__)
    parser.add_argument("--magnitudes", type=harness.numbers, default=MAGNITUDES, help="RandAugment magnitudes")
    parser.add_argument("--sizes", type=harness.numbers, default=(), help="px; the paper: 128,192,300; demo: 24,36,48")
    arguments = parser.parse_args()
    harness.report(arguments, "5", "RandAugment magnitude and image size", make_settings(arguments))


if __name__ == "__main__":
    main()
