"""Tables 10 and 11 of the paper: pairs of V1 and V2 networks with the same training.

Table 10 trains V1-B7 and V2-M with the stages and settings of V2-M. Table 11 trains pairs of smaller networks without
progressive learning, each network at its own final size. At the paper's scale:
    PYTHONPATH=. python benchmarks/ablations/table_10_11.py --table=10 --dataset_cfg=imagenet --data_dir=DIR
    PYTHONPATH=. python benchmarks/ablations/table_10_11.py --table=11 --dataset_cfg=imagenet --data_dir=DIR

``--model_names`` takes pairs, V1 first: ``efficientnet-b1,efficientnetv2-b0,...``. Times are compared with V1's. The
pixels ratio does not take the networks into account.
"""

from __future__ import annotations

import argparse

from benchmarks.ablations import harness
from effnetv2_keras.errors import UsageError

PAPER = {
    "10": {
        "efficientnet-b7": {"top-1": 85.0, "M": 66, "G": 38, "hours": 54, "time ratio": 1.0},
        "efficientnetv2-m": {"top-1": 85.1, "M": 55, "G": 24, "hours": 13, "time ratio": 0.24},
    },
    "11": {
        "efficientnet-b1": {"top-1": 79.0}, "efficientnetv2-b0": {"top-1": 78.7},
        "efficientnet-b2": {"top-1": 79.8}, "efficientnetv2-b1": {"top-1": 79.8},
        "efficientnet-b4": {"top-1": 82.9}, "efficientnetv2-b3": {"top-1": 82.1},
        "efficientnet-b5": {"top-1": 83.7}, "efficientnetv2-s": {"top-1": 83.6},
    },
}  # fmt: skip
"""By table and network: top-1, percent; parameters, millions; FLOPs, billions; training time, hours."""


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    names = arguments.model_names or tuple(PAPER[arguments.table])
    if not arguments.model_names and harness.is_demo(arguments):
        small = ("efficientnet-b0", "efficientnetv2-b0")
        names = tuple(harness.small_network(arguments.output_dir, name) for name in small)
    if len(names) % 2:
        raise UsageError(f"--model_names has {len(names)} networks, but they are compared in pairs; give V1,V2,V1,V2.")
    settings: list[harness.Setting] = []
    for first, second in zip(names[::2], names[1::2]):
        progressive = harness.base_config(arguments, second).progressive.model_dump()
        together = {
            f"progressive.{name}.{end}": progressive[name][end]
            for name in ("image_size", *harness.RAMPS)
            for end in ("start", "end")
        }
        changes = together if arguments.table == "10" else {"progressive.stages": 1}
        for name in (first, second):
            label = name.rpartition("/")[2].removesuffix(".json")
            reference = settings[-1].name if name == second else None
            paper = PAPER[arguments.table].get(name, {})
            settings.append(harness.Setting(label, name, changes, paper, reference))
    return settings


def main() -> None:
    parser = harness.make_parser("10_11", __doc__)
    parser.add_argument("--table", choices=("10", "11"), default="10")
    arguments = parser.parse_args()
    arguments.output_dir = f"{arguments.output_dir}/{arguments.table}"
    title = "V1 and V2 with the same training" + ("" if arguments.table == "10" else ", without progressive learning")
    harness.report(arguments, arguments.table, title, make_settings(arguments))


if __name__ == "__main__":
    main()
