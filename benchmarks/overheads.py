"""Measures the overhead of a run (logging, guards, moving average, progress, timing) compared with a bare loop.

The bare loop takes batches from the same input and calls the step of a network without a moving average. The run does
everything that training does. The two alternate, so that other work on the machine slows both alike. Prints the ratio
of the median times of a chunk of steps, run / bare loop.

    PYTHONPATH=. python benchmarks/overheads.py --image_size 128 --batch 16
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import rich.console

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import photo_config
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.interruption import StopRequest
from effnetv2_keras.training.run import Run
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--image_size", type=int, default=128, help="image side, px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10, help="steps per chunk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = arguments.image_size
        config = photo_config(
            pathlib.Path(folder) / "photos", arguments.model_name, batch=arguments.batch, stages=1, start=size, end=size
        ).override({"train.min_steps": 100_000, "runtime.preflight": False})
        strategy, splits = make_strategy("cpu"), open_splits(config.data)
        run = Run(config, RunFolder(pathlib.Path(folder) / "run"), strategy, splits, rich.console.Console())
        (stage,) = run.stages
        run.enter(stage, 0)
        bare = config.override({"train.ema_decay": 0})
        state = create_state(bare, strategy, num_classes=2, steps_per_epoch=100, total_steps=100_000)
        step, batches = TrainStep(state, strategy, config=bare, stage=stage), run.input.batches(stage, 0)
        finished, stop = 0, StopRequest()
        seconds: dict[str, list[float]] = {"bare": [], "run": []}
        for number in range(arguments.rounds + 1):
            start = time.perf_counter()
            for _ in range(arguments.steps):
                metrics = step(next(batches))
            float(metrics["loss"])
            middle = time.perf_counter()
            for _ in range(arguments.steps):
                run.train(stage, finished, 1, stop)
                finished += 1
            end = time.perf_counter()
            if number:  # the first chunk includes tracing
                seconds["bare"].append(middle - start)
                seconds["run"].append(end - middle)
    medians = {name: statistics.median(own) / arguments.steps for name, own in seconds.items()}
    ratio = medians["run"] / medians["bare"]
    print(f"bare {medians['bare'] * 1000:.1f} ms, run {medians['run'] * 1000:.1f} ms per step")
    print(f"A run takes {ratio:.3f} times as long as its steps alone")
    print(json.dumps({"ratio": ratio, "step_seconds": medians, **vars(arguments)}))


if __name__ == "__main__":
    main()
