"""Table 3 of the paper: counts and step times of V1-B4 with Fused-MBConv in stages 1-3, 1-5 and 1-7.

The training steps of each network alternate with those of the network without fused stages, on random images. The
paper's time ratios are computed from its images per second. At the paper's scale, with a GPU or TPU:
    PYTHONPATH=. python benchmarks/ablations/table_3.py --image_size=380 --batch=32 --steps=100

``--train`` also trains each network on the data of ``--dataset_cfg``, as the other ablations do.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from benchmarks.ablations import display, harness, table_3_counts
from effnetv2_keras.architecture.fusing import fuse
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.architecture.variants import get_spec
from effnetv2_keras.config import Config
from effnetv2_keras.runs.disk import write_atomically

PAPER = {0: (82.8, 262, 155), 3: (83.1, 362, 216), 5: (83.1, 327, 223), 7: (81.7, 254, 206)}
"""By last fused stage (0: none): top-1, percent; images per second on a TPU core and on a V100."""


def paper_of(last: int) -> dict[str, float]:
    top1, tpu, v100 = PAPER[last]
    counts = table_3_counts.PAPER[last]
    return {
        "top-1": top1,
        "M": counts.parameters,
        "G": counts.flops,
        "TPU time ratio": round(PAPER[0][1] / tpu, 2),
        "time ratio": round(PAPER[0][2] / v100, 2),
    }


def networks(kernel_size: int | None) -> dict[int, ModelSpec]:
    """Returns the four networks, by last fused stage."""
    return {last: fuse(get_spec("efficientnet-b4"), range(1, last + 1), kernel_size=kernel_size) for last in PAPER}


def label(last: int) -> str:
    return f"stages 1-{last} fused" if last else "none fused"


def make_settings(arguments: argparse.Namespace) -> list[harness.Setting]:
    settings = []
    for last, spec in networks(arguments.kernel_size).items():
        path = pathlib.Path(arguments.output_dir) / f"{spec.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, spec.to_json())
        reference = label(0) if last else None
        settings.append(harness.Setting(label(last), str(path), {}, paper_of(last), reference))
    return settings


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each network: counts, and its step time relative to the network without fused stages."""
    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.search.step_time import Stopwatch

    config = Config().override({
        "train.batch_size": arguments.batch, "progressive.stages": 1, "precision.policy": arguments.policy,
        **harness.sizes(arguments.image_size, arguments.image_size),
    })  # fmt: skip
    specs = networks(arguments.kernel_size)
    stopwatch = Stopwatch(config, specs[0], make_strategy(arguments.strategy), num_classes=1000)
    rows = []
    for last, spec in specs.items():
        ratios = [1.0]
        if last:
            ratios = [stopwatch.relative_time(spec, steps=arguments.steps) for _ in range(arguments.rounds)]
        counts = table_3_counts.count(spec)
        rows.append({
            "setting": label(last), "runs": len(ratios), "paper": paper_of(last),
            "parameters": harness.spread([counts.parameters]), "flops": harness.spread([counts.flops]),
            "step_ratio": harness.spread(ratios),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = harness.make_parser("3", __doc__)
    parser.add_argument("--kernel_size", type=int, default=None, help="kernel of fused stages, px; default: unchanged")
    parser.add_argument("--image_size", type=int, default=96, help="px; the paper: 380")
    parser.add_argument("--batch", type=int, default=4, help="images per step; the paper: 32")
    parser.add_argument("--steps", type=int, default=6, help="steps of each network per round")
    parser.add_argument("--rounds", type=int, default=1, help="rounds; each builds the networks again")
    parser.add_argument("--policy", default="float32", help="precision.policy")
    parser.add_argument("--train", action="store_true", help="train the networks as well")
    arguments = parser.parse_args()
    title = "Table 3: V1-B4 with fused stages, step times"
    rows, folder = measure(arguments), pathlib.Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    display.print_table(rows, title)
    display.plot(rows, title, folder / "table_3.png")
    results = {"table": "3", "arguments": vars(arguments), "settings": rows}
    write_atomically(folder / "table_3.json", json.dumps(results, indent=1))
    if arguments.train:
        harness.report(arguments, "3_trained", "V1-B4 with fused stages, trained", make_settings(arguments))
    else:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
