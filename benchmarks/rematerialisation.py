"""Measures peak memory and time of a training step with and without ``runtime.rematerialize``.

Each measurement has its own process and runs the steps of training on random images. The peak is the maximum memory of
the process (``ru_maxrss``) or of the GPU. The floor is the memory before the first step: TensorFlow, model and
optimizer. Prints a line for each image size with and without rematerialization; then a line of JSON. ``--as-traced``
turns TensorFlow's graph optimizer off; ``--xla`` compiles the step.

    PYTHONPATH=. python benchmarks/rematerialisation.py --model efficientnetv2-b0 --sizes 224 --batch 32 --steps 3
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep

NUM_CLASSES = 1000


def peak_mib() -> float:
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB


def measure(args: argparse.Namespace, size: int, rematerialize: bool) -> dict[str, float]:
    if args.as_traced:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    config = Config().override(
        {
            "model.model_name": args.model,
            "train.batch_size": args.batch,
            "precision.policy": args.policy,
            "precision.jit_compile": args.xla,
            "runtime.rematerialize": rematerialize,
        }
    )
    strategy = make_strategy()
    state = create_state(config, strategy, num_classes=NUM_CLASSES, steps_per_epoch=100, total_steps=1000)
    step = TrainStep(state, strategy, config=config, stage=config.progressive.plan(1000)[0])
    batch = {
        "image": tf.cast(tf.random.uniform([args.batch, size, size, 3], 0, 256, tf.int32), tf.uint8),
        "label": tf.one_hot(tf.random.uniform([args.batch], 0, NUM_CLASSES, tf.int32), NUM_CLASSES),
        "weight": tf.ones([args.batch]),
    }
    floor, times = peak_mib(), []
    for _ in range(args.steps + 1):  # the first step includes tracing
        start = time.perf_counter(), time.process_time()
        float(step(batch)["loss"])
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = (statistics.median(column) for column in zip(*times[1:]))
    return {"size": size, "rematerialize": rematerialize, "floor": floor, "peak": peak_mib(), "wall": wall, "cpu": cpu}


def in_its_own_process(size: int, rematerialize: bool) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--one", str(size), str(int(rematerialize))]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnetv2-b0", help="a name of variants.MODELS")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224], help="image sides, pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=3, help="steps to time, after a first step that traces")
    parser.add_argument("--policy", default="float32", help="precision.policy")
    parser.add_argument("--xla", action="store_true", help="precision.jit_compile")
    parser.add_argument("--as-traced", action="store_true", help="turn TensorFlow's graph optimizer off")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one[0], bool(args.one[1]))))
        return

    results = []
    for size in args.sizes:
        for rematerialize in (False, True):
            result = in_its_own_process(size, rematerialize)
            results.append(result)
            print(
                f"{size} px, {'with' if rematerialize else 'without'} rematerialization: peak {result['peak']:.0f} MiB "
                f"(before the first step {result['floor']:.0f} MiB), step {result['wall']:.2f} s (CPU time "
                f"{result['cpu']:.2f} s)",
                flush=True,
            )
    print(json.dumps({"model": args.model, "batch": args.batch, "policy": args.policy, "results": results}))


if __name__ == "__main__":
    main()
