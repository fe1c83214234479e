"""Compares progressive learning with training at the final size: time for the same number of steps.

With ``--compare runs``, both ways run from the first trace to the last step, each in a process of its own, in turns.
The tracing of the steps and the change of the input between the stages count; starting TensorFlow and building the
network do not. Prints the ratio of the medians.

With ``--compare shapes``, a step that is traced once for images of any size takes turns with steps that are traced for
the size of their stage. Prints, for each size, the ratio of the medians of the time.

    PYTHONPATH=. python benchmarks/progressive_speed.py --start 128 --end 300 --stages 4 --steps 30
    PYTHONPATH=. python benchmarks/progressive_speed.py --compare shapes --steps 2 --rounds 10
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import photo_config
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.state import TrainState, create_state
from effnetv2_keras.training.steps import TrainStep, reuse

WAYS = ("progressive", "fixed")


def photos(options: argparse.Namespace, stages: int, folder: str) -> Config:
    """Writes photographs and returns the settings of a run with some stages."""
    start = options.start if stages > 1 else options.end
    return photo_config(
        pathlib.Path(folder), options.model_name, batch=options.batch, stages=stages, start=start, end=options.end
    )


def batches_of(config: Config, stage: Stage, batch: int) -> Iterator[Any]:
    """Returns the batches of a stage."""
    plan = InputPlan(config.data, batch, None, UnreadableImages("error"))
    source = open_splits(config.data).train
    return iter(single_replica(train_input(source, plan, stage=stage, seed=0, first_step=stage.first_step)))


def new_state(config: Config, total_steps: int) -> tuple[TrainState, list[Stage]]:
    """Returns a new network with its optimizer, and the stages."""
    strategy = make_strategy("cpu")
    state = create_state(config, strategy, num_classes=2, steps_per_epoch=100, total_steps=total_steps)
    return state, config.progressive.plan(total_steps)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Runs one way in this process; returns its seconds and those of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        config = photos(options, options.stages if options.way == "progressive" else 1, folder)
        state, stages = new_state(config, options.steps * options.stages)
        step, start, processor = None, time.perf_counter(), time.process_time()
        for stage in stages:
            batches = batches_of(config, stage, options.batch)
            step = reuse([step], stage) or TrainStep(state, make_strategy("cpu"), config=config, stage=stage)
            for _ in range(stage.num_steps):
                float(step(next(batches))["loss"])
        return {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}


def compare_runs(options: argparse.Namespace) -> dict[str, Any]:
    """Runs both ways in turns, each in a new process, and prints their ratio."""
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS[:: -1 if number % 2 else 1]:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows[way].append(json.loads(text.splitlines()[-1]))
            print(f"{way}: {rows[way][-1]['seconds']:.1f} s, {rows[way][-1]['processor']:.1f} s of the processor")
    found = {}
    for name in ("seconds", "processor"):
        progressive, fixed = (statistics.median(row[name] for row in rows[way]) for way in WAYS)
        found[name] = progressive / fixed
    print(
        f"{options.stages} stages of {options.steps} steps take {found['seconds']:.3f} of the time of as many steps at "
        f"{options.end} px, and {found['processor']:.3f} of the processor's time; tracing and input are included"
    )
    return {"ratio": found["seconds"], "processor_ratio": found["processor"]}


def compare_shapes(options: argparse.Namespace) -> dict[str, Any]:
    """Takes steps of both kinds in turns at each size, and prints the ratios of their time."""
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        config = photos(options, options.stages, folder)
        state, stages = new_state(config, 4000 * options.stages)
        strategy = make_strategy("cpu")
        joined = TrainStep(state, strategy, config=config, stage=stages[0])
        for stage in stages:
            batch = next(batches_of(config, stage, options.batch))
            own = TrainStep(state, strategy, config=config, stage=stage)
            own._any_size = False
            joined.stage = stage
            seconds: dict[TrainStep, list[float]] = {joined: [], own: []}
            for number in range(options.rounds + 1):
                for step in (joined, own)[:: -1 if number % 2 else 1]:
                    start = time.perf_counter()
                    for _ in range(options.steps):
                        float(step(batch)["loss"])
                    seconds[step].append((time.perf_counter() - start) / options.steps)
            firsts = [own_seconds[0] for own_seconds in seconds.values()]
            medians = [statistics.median(own_seconds[1:]) for own_seconds in seconds.values()]
            ratios[stage.image_size] = medians[0] / medians[1]
            print(
                f"{stage.image_size} px: {medians[0]:.3f} s per step traced for all sizes, {medians[1]:.3f} s for "
                f"this size, ratio {ratios[stage.image_size]:.3f}; first steps {firsts[0]:.1f} and {firsts[1]:.1f} s"
            )
    return {"ratios": ratios}


def main() -> None:
    """Compares the runs, or the kinds of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", choices=["runs", "shapes"], default="runs")
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--start", type=int, default=128, help="image side of the first stage, px")
    parser.add_argument("--end", type=int, default=300, help="image side of the last stage, px")
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="comparisons, in turns")
    parser.add_argument("--steps", type=int, default=30, help="steps of each stage; shapes: steps of each comparison")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        found: dict[str, Any] = run(options)
    else:
        found = compare_runs(options) if options.compare == "runs" else compare_shapes(options)
    print(json.dumps({**found, **vars(options)}))


if __name__ == "__main__":
    main()
