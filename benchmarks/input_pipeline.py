"""Compares the images/s of the input pipeline with those of the training step of EfficientNetV2-B0.

The pipeline is decode, random crop, flip and RandAugment (2 layers) of 500 x 375 JPEG photographs. The step is a
float32 step of the training loop. The two measurements alternate, so that other work on the machine slows both alike.
Prints the ratio of the medians, pipeline / step.

    PYTHONPATH=. python benchmarks/input_pipeline.py --size 224 --batch 16
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
import hparams
from benchmarks.photos import write_photos
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep


def make_config(folder: pathlib.Path, size: int, batch: int, magnitude: float) -> Config:
    return hparams.load("folder", "efficientnetv2-b0").override(
        {
            "data.data_dir": str(folder),
            "train.batch_size": batch,
            "progressive.stages": 1,
            "progressive.image_size.end": size,
            "progressive.randaug_magnitude.end": magnitude,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="image side, px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20, help="batches per round")
    parser.add_argument("--steps", type=int, default=4, help="training steps per round")
    parser.add_argument("--magnitude", type=float, default=15, help="RandAugment magnitude; 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(write_photos(pathlib.Path(folder)), arguments.size, arguments.batch, arguments.magnitude)
        source = open_splits(config.data).train
        total_steps = 10**6
        (stage,) = config.progressive.plan(total_steps)
        plan = InputPlan(config.data, arguments.batch, None, UnreadableImages("error"))
        input_fn = train_input(source, plan, stage=stage, seed=0, first_step=0)
        strategy = make_strategy("cpu")
        state = create_state(config, strategy, num_classes=2, steps_per_epoch=100, total_steps=total_steps)
        step = TrainStep(state, strategy, config=config, stage=stage)
        batch = next(iter(single_replica(input_fn)))
        step(batch)
        input_seconds, step_seconds = [], []
        for _ in range(arguments.rounds):
            batches = iter(single_replica(input_fn))  # new in each round, so that it does not prefetch during steps
            next(batches)
            start = time.perf_counter()
            for _ in range(arguments.batches):
                next(batches)
            input_seconds.append((time.perf_counter() - start) / arguments.batches)
            del batches
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step(batch)
            step_seconds.append((time.perf_counter() - start) / arguments.steps)
    delivered, consumed = (arguments.batch / statistics.median(seconds) for seconds in (input_seconds, step_seconds))
    print(f"pipeline {delivered:.0f} images/s, train step {consumed:.1f} images/s: ratio {delivered / consumed:.2f}")
    print(json.dumps({"pipeline": delivered, "step": consumed, "ratio": delivered / consumed, **vars(arguments)}))


if __name__ == "__main__":
    main()
