"""Trains EfficientNetV2-S on a GPU: speed, memory and input at one size, then four growing sizes against one size.

Each run is a training run of this package in a process of its own, on photographs that the script makes. It uses all
GPUs of the machine, or the CPU with ``--strategy cpu`` (to try the script). If a batch does not fit in memory, half of
it is tried. For every precision, with and without XLA, prints images per second and peak memory of one size, and
the share of the time spent waiting for input. Then prints the time of the stages as a share of the time of as many
steps of the last size, with and without tracing.

    PYTHONPATH=. python benchmarks/gpu.py --batch 256 --steps 60

The rows to compare with are printed too. They were measured by others, on the hardware that they name.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

ELSEWHERE = (
    ("NVIDIA's EfficientNetV2-S for TensorFlow 2, 300 px, one A100, mixed precision and XLA", "950 images/s"),
    ("the same in TF32", "390 images/s"),
    ("the same, training in stages of growing size", "0.74 of the time at one size"),
    ("timm, EfficientNetV2-S, 300 px, one RTX 3090, mixed precision, NCHW", "389 images/s"),
    ("the same, channels last", "488 images/s"),
)
NO_MEMORY = 3
"""Exit status of a run that does not fit in memory."""


def train_here(job: dict[str, Any]) -> None:
    """Trains in this process, and writes the rows of ``metrics.jsonl`` to the file that a job names."""
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import hparams
    from effnetv2_keras import train
    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.runs.run_folder import RunFolder
    from effnetv2_keras.training.preflight import MemoryShortageError

    config = hparams.load("folder", job["model_name"]).override(job["settings"])
    try:
        train(config, job["folder"], strategy=make_strategy(job["strategy"]))
    except MemoryShortageError as error:
        print(error)
        sys.exit(NO_MEMORY)
    pathlib.Path(job["result"]).write_text(json.dumps(RunFolder(job["folder"]).metrics()))


def measured(arguments: argparse.Namespace, photos: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs one training run, with half of the batch as often as it does not fit, and returns its figures."""
    batch = arguments.batch
    while batch:
        with tempfile.TemporaryDirectory() as folder:
            job = {
                "model_name": arguments.model_name,
                "strategy": arguments.strategy,
                "folder": f"{folder}/run",
                "result": f"{folder}/rows.json",
                "settings": {
                    "data.data_dir": str(photos),
                    "data.augment": "randaug",
                    "train.batch_size": batch,
                    "train.min_steps": arguments.steps,
                    "train.epochs": 0.001,
                    "runtime.log_every": max(1, arguments.steps // 10),
                    **settings,
                },
            }
            status = subprocess.run([sys.executable, __file__, "--job", json.dumps(job)], check=False).returncode
            if status == NO_MEMORY:
                batch //= 2
                continue
            if status:
                sys.exit(status)
            return figures(json.loads(pathlib.Path(job["result"]).read_text()), batch)
    sys.exit("Not even one image fits in memory.")


def figures(rows: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Returns the figures of a run from the rows of its steps."""
    rows = [row for row in rows if row["kind"] == "train"]
    timed = [row for row in rows if row["images_per_second"]]
    seconds, done = 0.0, 0
    for row in rows:
        seconds += (row["step"] - done) * batch / (row["images_per_second"] or timed[0]["images_per_second"])
        done = row["step"]
    return {
        "batch": batch,
        "images_per_second": done * batch / seconds,
        "step_seconds": seconds / done,
        "compile_seconds": sum(row["compile_seconds"] for row in rows),
        "memory_mb": max(row["memory_mb"] for row in rows),
        "input_wait": sum(row["input_wait"] for row in timed) / len(timed),
        "steps": done,
    }


def at_size(first: int, last: int, stages: int) -> dict[str, Any]:
    """Returns the settings of the sizes of a run."""
    return {
        "progressive.stages": stages,
        "progressive.image_size.start": first,
        "progressive.image_size.end": last,
        "eval.isize": last,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-s")
    parser.add_argument("--start", type=int, default=128, help="image side of the first stage, px")
    parser.add_argument("--size", type=int, default=300, help="image side of the last stage, px")
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256, help="largest batch, images")
    parser.add_argument("--steps", type=int, default=60, help="steps of a run")
    parser.add_argument("--strategy", default="auto", help="auto, or cpu to try the script")
    parser.add_argument(
        "--policies",
        nargs="+",
        default=["float32", "mixed_bfloat16", "mixed_float16"],
        help="values of precision.policy",
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        train_here(json.loads(arguments.job))
        return
    from benchmarks.photos import write_photos

    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    fixed, results = at_size(arguments.size, arguments.size, 1), []
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(pathlib.Path(folder) / "photos", per_class=max(100, 2 * arguments.batch))
        for policy in arguments.policies:
            for xla in (False, True):
                settings = {"precision.policy": policy, "precision.jit_compile": xla}
                row = {"policy": policy, "xla": xla, **measured(arguments, photos, {**fixed, **settings})}
                results.append(row)
                print(json.dumps(row), flush=True)
        best = max(results, key=lambda row: row["images_per_second"])
        settings = {"precision.policy": best["policy"], "precision.jit_compile": best["xla"]}
        sizes = at_size(arguments.start, arguments.size, arguments.stages)
        arguments.batch = best["batch"]
        staged = measured(arguments, photos, {**sizes, **settings})
    print(f"\n{arguments.model_name}, {arguments.size} px")
    for row in results:
        xla = "on " if row["xla"] else "off"
        print(
            f"{row['policy']:>14}, XLA {xla}: {row['images_per_second']:8.1f} images/s, batch "
            f"{row['batch']}, {row['memory_mb']:.0f} MiB, {100 * row['input_wait']:.0f} % waiting for input, "
            f"{row['compile_seconds']:.0f} s of tracing and compiling"
        )
    steps = staged["step_seconds"] / best["step_seconds"]
    whole = [run["steps"] * run["step_seconds"] + run["compile_seconds"] for run in (staged, best)]
    print(
        f"{arguments.stages} stages from {arguments.start} px: {steps:.2f} of the time of the same steps at "
        f"{arguments.size} px; with tracing and compiling {whole[0] / whole[1]:.2f}"
    )
    print(json.dumps({"staged": staged, "fixed": best, "ratio": steps, "ratio_with_compiling": whole[0] / whole[1]}))
    print("\nMeasured by others:")
    for what, result in ELSEWHERE:
        print(f"  {what}: {result}")


if __name__ == "__main__":
    main()
