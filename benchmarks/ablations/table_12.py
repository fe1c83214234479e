"""Table 12 of the paper: progressive learning for other networks, such as those of Keras.

The baseline has one stage with the final size and the final regularization, and the same number of epochs. At the
paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_12.py --dataset_cfg=imagenet --data_dir=DIR

``--model_names`` takes any ``--model_name`` of main.py with a final size: ``keras:ResNet50@224,efficientnet-b4@380``.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness

PAPER = {  # network@final size: top-1 and hours of the baseline, top-1 and hours with progressive learning
    "keras:ResNet50@224": (78.1, 4.9, 78.4, 3.5),
    "keras:ResNet50@380": (80.0, 14.3, 80.3, 5.8),
    "keras:ResNet152@380": (82.4, 15.5, 82.9, 7.2),
    "efficientnet-b4@380": (82.9, 20.8, 83.1, 9.4),
    "efficientnet-b5@456": (83.7, 42.9, 84.0, 15.2),
}
DEMO_NAMES, DEMO_FIRST = ("keras:MobileNetV2@64", "keras:EfficientNetB0@64"), 32
"""Networks of the demo, and the side of their first training images, pixels: they need at least 32 px."""


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    names = arguments.model_names or (DEMO_NAMES if harness.is_demo(arguments) else tuple(PAPER))
    first = arguments.first_size or (DEMO_FIRST if harness.is_demo(arguments) else None)
    settings = []
    for name in names:
        model_name, _, size = name.partition("@")
        config = harness.base_config(arguments, model_name)
        last = int(size) if size else round(config.progressive.image_size.end)
        sizes = {**harness.sizes(first, last), "eval.isize": last}
        baseline = {**sizes, "progressive.stages": 1}
        label = f"{model_name.removeprefix('keras:')} ({last})"
        top1, hours, progressive_top1, progressive_hours = PAPER.get(name, (0.0, 0.0, 0.0, 0.0))
        papers: tuple[dict[str, float], ...] = ({}, {})
        if top1:
            ratio = round(progressive_hours / hours, 2)
            papers = (
                {"top-1": top1, "hours": hours, "time ratio": 1.0},
                {"top-1": progressive_top1, "hours": progressive_hours, "time ratio": ratio},
            )
        settings.append(harness.Setting(f"{label} baseline", model_name, baseline, papers[0]))
        settings.append(
            harness.Setting(f"{label} progressive", model_name, sizes, papers[1], reference=f"{label} baseline")
        )
    return settings


def main() -> None:
    parser = harness.make_parser("12", __doc__)
    parser.add_argument("--first_size", type=int, default=None, help="px; default: 128, of the recipe; demo: 32")
    arguments = parser.parse_args()
    harness.report(arguments, "12", "progressive learning for other networks", make_settings(arguments))


if __name__ == "__main__":
    main()
