"""Measures the cost of stage switches: seconds to build the input and trace the step, and memory over many switches.

Each stage is built as in a run, runs a few steps, and is deleted before the next stage, whose images are larger.

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

import psutil

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import photo_config
from effnetv2_keras.data.pipeline import InputPlan, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--start", type=int, default=32, help="image side of the first stage, px")
    parser.add_argument("--end", type=int, default=72, help="image side of the last stage, px")
    parser.add_argument("--stages", type=int, default=41)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="steps of each stage")
    arguments = parser.parse_args()
    total_steps = arguments.stages * arguments.steps
    seconds, memory = [], []
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
        for stage in config.progressive.plan(total_steps):
            start = time.perf_counter()
            step = TrainStep(state, strategy, config=config, stage=stage)
            input_fn = train_input(source, plan, stage=stage, seed=0, first_step=stage.first_step)
            batches = iter(strategy.distribute_datasets_from_function(input_fn))
            for number in range(arguments.steps):
                float(step(next(batches))["loss"])
                if number == 0:
                    seconds.append(time.perf_counter() - start)
            del step, batches, input_fn
            gc.collect()
            memory.append(psutil.Process().memory_info().rss / 2**20)
            print(f"{stage.index}: {stage.image_size} px, {seconds[-1]:.1f} s, {memory[-1]:.0f} MiB", flush=True)
    growth = statistics.median(memory[-3:]) / statistics.median(memory[4:7])
    print(f"{statistics.median(seconds):.1f} s per switch; memory at the end is {growth:.3f} of that after five stages")
    print(json.dumps({"growth": growth, "seconds": seconds, "memory": memory, **vars(arguments)}))


if __name__ == "__main__":
    main()
