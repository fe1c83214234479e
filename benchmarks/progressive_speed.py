"""Compares progressive learning with training at the final size: time for the same number of steps.

Every stage of the plan has its own training step and its own input, as in a run. Each round runs a few steps of every
stage, so that other work on the machine slows all alike. The last stage is also the run with a fixed size. Prints the
mean over the stages of the median step time, including input, divided by the median step time of the last stage. Prints
the tracing time, which each stage needs once, separately.

    PYTHONPATH=. python benchmarks/progressive_speed.py --start 128 --end 300 --stages 4
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.photos import photo_config
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--start", type=int, default=128, help="image side of the first stage, px")
    parser.add_argument("--end", type=int, default=300, help="image side of the last stage, px")
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3, help="steps of each stage per round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = photo_config(
            pathlib.Path(folder),
            arguments.model_name,
            batch=arguments.batch,
            stages=arguments.stages,
            start=arguments.start,
            end=arguments.end,
        )
        source = open_splits(config.data).train
        total_steps = 4000 * arguments.stages
        strategy = make_strategy("cpu")
        state = create_state(config, strategy, num_classes=2, steps_per_epoch=100, total_steps=total_steps)
        stages = config.progressive.plan(total_steps)
        plan = InputPlan(config.data, arguments.batch, None, UnreadableImages("error"))
        steps, inputs, trace_seconds = [], [], []
        for stage in stages:
            inputs.append(
                iter(single_replica(train_input(source, plan, stage=stage, seed=0, first_step=stage.first_step)))
            )
            steps.append(TrainStep(state, strategy, config=config, stage=stage))
            start = time.perf_counter()
            steps[-1](next(inputs[-1]))
            trace_seconds.append(time.perf_counter() - start)
        seconds: list[list[float]] = [[] for _ in stages]
        for _ in range(arguments.rounds):
            for own, step, batches in zip(seconds, steps, inputs):
                start = time.perf_counter()
                for _ in range(arguments.steps):
                    step(next(batches))
                own.append((time.perf_counter() - start) / arguments.steps)
    medians = [statistics.median(own) for own in seconds]
    for stage, median, trace in zip(stages, medians, trace_seconds):
        print(f"{stage.image_size} px: {median:.3f} s per step, {trace:.1f} s for tracing and the first step")
    ratio = statistics.mean(medians) / medians[-1]
    print(f"{len(stages)} stages take {ratio:.3f} of the time of the same steps at {stages[-1].image_size} px")
    print(json.dumps({"ratio": ratio, "step_seconds": medians, "trace_seconds": trace_seconds, **vars(arguments)}))


if __name__ == "__main__":
    main()
