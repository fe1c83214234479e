"""Compares the train step in mixed precision with the one in float32, taking turns, and shows where the time goes.

Prints the ratio of the median times, on the wall and of the processor, and the time of the kinds of operations that
take longest, from TensorFlow's profiler.

    PYTHONPATH=. python benchmarks/precision.py --policy mixed_bfloat16 --image_size 128 224
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import re
import statistics
import tempfile
import time
from typing import Any

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import hparams
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep

_OPERATION = re.compile(r".*:_?(?:Mkl)?(?:Native)?([A-Z]\w+)")
_STEPS = 3


def make_step(options: argparse.Namespace, policy: str) -> TrainStep:
    """Returns the train step of a network in a precision."""
    changes = {"precision.policy": policy, "train.batch_size": options.batch, "data.data_dir": "unused"}
    config = hparams.load("folder", options.model_name).override(changes)
    strategy = make_strategy("cpu")
    state = create_state(config, strategy, num_classes=10, steps_per_epoch=80, total_steps=1600)
    return TrainStep(state, strategy, config=config, stage=config.plan(1600)[-1])


def milliseconds(step: TrainStep, batch: dict[str, tf.Tensor]) -> collections.Counter[str]:
    """Returns the time of each kind of operation in a step."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(_STEPS):
            float(step(batch)["loss"])
        tf.profiler.experimental.stop()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    found: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events if plane.name == "/host:CPU"):
            if match := _OPERATION.fullmatch(plane.event_metadata[event.metadata_id].name):
                found[match[1]] += event.duration_ps / 1e9 / _STEPS
    for name in ("Process", "Run"):  # of the executor, not operations
        found.pop(name, None)
    return found


def compare(options: argparse.Namespace, steps: dict[str, TrainStep], size: int) -> dict[str, Any]:
    """Takes steps in turns at a size, and prints the ratios and the operations."""
    images = np.random.default_rng(0).uniform(0, 255, [options.batch, size, size, 3]).astype(np.float32)
    labels = tf.one_hot(np.arange(options.batch) % 10, 10)
    batch = {"image": tf.constant(images), "label": labels, "weight": tf.ones([options.batch])}
    seconds: dict[str, list[tuple[float, float]]] = {policy: [] for policy in steps}
    for number in range(options.rounds + 2):
        for policy in list(steps)[:: -1 if number % 2 else 1]:
            start = time.perf_counter(), time.process_time()
            float(steps[policy](batch)["loss"])
            seconds[policy].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    medians = {policy: [statistics.median(each) for each in zip(*own[2:])] for policy, own in seconds.items()}
    wall, processor = (medians[options.policy][place] / medians["float32"][place] for place in (0, 1))
    print(f"{size} px: {options.policy} takes {wall:.3f} of float32's time, {processor:.3f} of the processor's")
    spent = {policy: milliseconds(step, batch) for policy, step in steps.items()}
    for name, _ in (spent["float32"] + spent[options.policy]).most_common(options.operations):
        print(f"    {name:<40} {spent['float32'][name]:7.1f} ms  {spent[options.policy][name]:7.1f} ms")
    return {"size": size, "ratio": wall, "processor_ratio": processor}


def main() -> None:
    """Compares the two at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=["mixed_bfloat16", "mixed_float16"], default="mixed_bfloat16")
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--image_size", type=int, nargs="+", default=[128, 224], help="px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20, help="steps of each")
    parser.add_argument("--operations", type=int, default=12, help="how many kinds of operations to show")
    options = parser.parse_args()
    steps = {policy: make_step(options, policy) for policy in ("float32", options.policy)}
    print(json.dumps([compare(options, steps, size) for size in options.image_size]))


if __name__ == "__main__":
    main()
