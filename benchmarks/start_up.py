"""Measures the time from the command to the first row of the log, which is written after the first step.

- ``demo``: ``--dataset_cfg=demo``.
- ``finetune``: ``--dataset_cfg=finetune`` with B0 and images of 224 px, from a file of weights.

Each run is a new process, which is ended after its first row. With ``--checkouts`` of two versions, their runs take
turns. Prints the medians of the time on the wall and of the processor, and the ratio to the first checkout.

    PYTHONPATH=. python benchmarks/start_up.py --rounds 3 --checkouts OLDER .
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import psutil

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import write_photos
from effnetv2_keras import build_model
from effnetv2_keras.runs.run_folder import RunFolder

RUNS = ("demo", "finetune")


def flags_of(run: str, folder: pathlib.Path) -> list[str]:
    """Returns the flags of a run; ``folder`` is where ``prepare`` wrote its files."""
    changes = ["runtime.log_every=1"]
    if run == "demo":
        return ["--dataset_cfg=demo", f"--hparam_str={changes[0]}"]
    changes += [
        f"train.ft_init_ckpt={folder / 'weights.h5'}", "progressive.image_size.start=224",
        "progressive.image_size.end=224", "eval.isize=224", "train.epochs=20",
    ]  # fmt: skip
    return [
        "--dataset_cfg=finetune", "--model_name=efficientnetv2-b0", f"--data_dir={folder / 'photos'}",
        f"--hparam_str={','.join(changes)}",
    ]  # fmt: skip


def prepare(folder: pathlib.Path) -> None:
    """Writes photographs and a file of weights for ``finetune``."""
    write_photos(folder / "photos")
    build_model("efficientnetv2-b0").save_weights(str(folder / "weights.h5"))


def time_of(checkout: pathlib.Path, flags: Sequence[str], model_dir: pathlib.Path) -> tuple[float, float]:
    """Starts a run and ends it after its first row.

    Returns:
        Seconds until then, on the wall and of the processor.

    Raises:
        RuntimeError: if the process ends before.
    """
    command = [sys.executable, "main.py", "--mode=train", f"--model_dir={model_dir}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while not _has_row(model_dir):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} before its first step.")
            time.sleep(0.05)
        seconds, used = time.perf_counter() - start, watched.cpu_times()
        process.kill()
    return seconds, used.user + used.system


def _has_row(model_dir: pathlib.Path) -> bool:
    return model_dir.exists() and any(row["kind"] == "train" for row in RunFolder(model_dir).metrics())


def main() -> None:
    """Measures the runs in turns, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkouts", type=pathlib.Path, nargs="+", default=[pathlib.Path()])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts]
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(pathlib.Path(folder))
        for run in options.runs:
            rows: list[list[tuple[float, float]]] = [[] for _ in checkouts]
            for number in range(options.rounds):
                for index, checkout in enumerate(checkouts):
                    flags = flags_of(run, pathlib.Path(folder))
                    model_dir = pathlib.Path(folder) / f"{run}_{number}_{index}"
                    rows[index].append(time_of(checkout, flags, model_dir))
            found[run] = [[statistics.median(values) for values in zip(*own)] for own in rows]
            for checkout, (wall, processor) in zip(checkouts, found[run]):
                ratio = processor / found[run][0][1]
                print(
                    f"{run}, {checkout.name}: {wall:.1f} s, {processor:.1f} s of the processor ({ratio:.2f})",
                    flush=True,
                )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
