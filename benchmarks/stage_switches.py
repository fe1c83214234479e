"""Measures the cost of stage switches: the time until the first step of a stage ends, and memory over many switches.

The input of each stage is built as in a run, and the train step serves all stages. What a switch costs is the time to
the end of the first step less that of a usual step, on the wall and of the processor. The first stage also pays for
the trace of the step.

    PYTHONPATH=. python benchmarks/stage_switches.py --stages 41 --start 32 --end 72
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
import psutil

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import photo_config
from effnetv2_keras.data.pipeline import InputPlan, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep, reuse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--start", type=int, default=32, help="image side of the first stage, px")
    parser.add_argument("--end", type=int, default=72, help="image side of the last stage, px")
    parser.add_argument("--stages", type=int, default=41)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of each stage")
    arguments = parser.parse_args()
    total_steps = arguments.stages * arguments.steps
    switches, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        config = photo_config(
            pathlib.Path(folder),
            arguments.model_name,
            batch=arguments.batch,
            stages=arguments.stages,
            start=arguments.start,
            end=arguments.end,
        )
        source, strategy = open_splits(config.data).train, make_strategy("cpu")
        state = create_state(config, strategy, num_classes=2, steps_per_epoch=100, total_steps=total_steps)
        plan = InputPlan(config.data, arguments.batch, None, UnreadableImages("error"))
        step = None
        for stage in config.progressive.plan(total_steps):
            times = [clocks()]
            step = reuse([step], stage) or TrainStep(state, strategy, config=config, stage=stage)
            input_fn = train_input(source, plan, stage=stage, seed=0, first_step=stage.first_step)
            batches = iter(strategy.distribute_datasets_from_function(input_fn))
            for _ in range(stage.num_steps):
                float(step(next(batches))["loss"])
                times.append(clocks())
            steps = np.diff(times, axis=0)
            switches.append(steps[0] - np.median(steps[1:], axis=0))
            del batches, input_fn
            gc.collect()
            memory.append(psutil.Process().memory_info().rss / 2**20)
            wall, processor = switches[-1]
            print(
                f"{stage.index}: {stage.image_size} px, {wall:.2f} s, {processor:.2f} s of the processor, "
                f"{memory[-1]:.0f} MiB",
                flush=True,
            )
    wall, processor = np.median(switches[1:], axis=0)
    print(f"a switch takes {wall:.2f} s, {processor:.2f} s of the processor; one trace, {switches[0][0]:.1f} s")
    found = {"seconds": wall, "processor_seconds": processor, "memory": memory}
    if len(memory) > 9:
        found["growth"] = statistics.median(memory[-3:]) / statistics.median(memory[4:7])
        print(f"memory at the end is {found['growth']:.3f} of that after five stages")
    print(json.dumps({**found, **vars(arguments)}))


def clocks() -> list[float]:
    """Returns the time on the wall and that of the processor, seconds."""
    return [time.perf_counter(), time.process_time()]


if __name__ == "__main__":
    main()
