"""Compares the training step of two mirrored replicas on one CPU with that of one device and the whole batch.

Both run in this process, on the same threads. Their steps alternate, so that other work on the machine slows both
alike. Prints images per second, and the ratio of the median step times, one device / two replicas. A ratio of 1 means
that replicas have no cost.

    PYTHONPATH=. python benchmarks/mirrored_step.py --image_size 128 --batch 32
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import tensorflow as tf

import effnetv2_keras.environment  # noqa: F401
import hparams
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--image_size", type=int, default=128, help="image side, px")
    parser.add_argument("--batch", type=int, default=32, help="images per step, over all replicas")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    config = hparams.load("folder", arguments.model_name).override(
        {
            "train.batch_size": arguments.batch,
            "progressive.stages": 1,
            "progressive.image_size.end": arguments.image_size,
        }
    )
    calls = {}
    for name in ("cpu", "mirrored"):
        strategy = make_strategy(name)
        state = create_state(config, strategy, num_classes=10, steps_per_epoch=100, total_steps=1000)
        step = TrainStep(state, strategy, config=config, stage=config.progressive.plan(1000)[0])
        calls[name] = (step, _batch(strategy, arguments.batch, arguments.image_size))
        step(calls[name][1])
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(arguments.rounds):
        for name, (step, batch) in calls.items():
            start = time.perf_counter()
            float(step(batch)["loss"])
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    ratio = medians["cpu"] / medians["mirrored"]
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s per step, {arguments.batch / median:.1f} images/s")
    print(f"Two replicas reach {ratio:.3f} of the throughput of one device")
    print(json.dumps({"ratio": ratio, "step_seconds": medians, **vars(arguments)}))


def _batch(strategy: tf.distribute.Strategy, batch: int, size: int) -> dict[str, tf.Tensor]:
    share = batch // strategy.num_replicas_in_sync

    def value(context: tf.distribute.ReplicaContext) -> dict[str, tf.Tensor]:
        random = np.random.default_rng(context.replica_id_in_sync_group)
        return {
            "image": tf.constant(random.integers(0, 256, (share, size, size, 3)).astype(np.uint8)),
            "label": tf.one_hot(random.integers(0, 10, share), 10),
            "weight": tf.ones([share]),
        }

    return strategy.experimental_distribute_values_from_function(value)


if __name__ == "__main__":
    main()
