"""Times import, building and inference of this package against ``tf.keras.applications``.

- Import: a new Python process imports TensorFlow, then this package with its networks; only the second part is timed.
- Building: EfficientNetV2-S with its classifier and random weights.
- Inference: EfficientNetV2-B0 in a ``tf.function``, ``model(x, training=False)``.

Building and inference of the two packages alternate, so that other work on the machine slows both alike. Prints medians
and the ratio ours / theirs (below 1: ours is faster) of wall time and of CPU time, on which other work has less effect;
then a line of JSON.

    PYTHONPATH=. python benchmarks/build_and_import.py --rounds 7 --calls 100 --size 224 --batches 1 16
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import effnetv2_keras.environment  # must precede the import of TensorFlow

# isort: split
import tensorflow as tf

import effnetv2_keras

IMPORT = """
import time
import effnetv2_keras.environment
import tensorflow as tf
tf.keras.applications.EfficientNetV2S
start = time.perf_counter(), time.process_time()
from effnetv2_keras import EfficientNetV2S
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def import_seconds(rounds: int) -> dict[str, float]:
    """Returns the median wall and CPU time of the import, seconds, after TensorFlow and Keras are imported."""
    runs = []
    for _ in range(rounds):
        output = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout
        runs.append([float(number) for number in output.split()])
    wall, cpu = (statistics.median(run[column] for run in runs) for column in (0, 1))
    return {"wall": wall, "cpu": cpu}


def compare(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns median times of two alternating functions, seconds, and their ratios; each round swaps the order."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in sorted(contestants, reverse=bool(turn % 2)):
            start = time.perf_counter(), time.process_time()
            contestants[name]()
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    ours, theirs = statistics.median(wall["ours"]), statistics.median(wall["theirs"])
    cpu_ratio = statistics.median(cpu["ours"]) / statistics.median(cpu["theirs"])
    return {"ours": ours, "theirs": theirs, "ratio": ours / theirs, "cpu_ratio": cpu_ratio}


def building(rounds: int) -> dict[str, float]:
    def builder(package: object) -> Callable[[], None]:
        def build() -> None:
            package.EfficientNetV2S(weights=None)
            tf.keras.backend.clear_session()

        build()  # excludes work that is only done the first time
        return build

    return compare({"ours": builder(effnetv2_keras), "theirs": builder(tf.keras.applications)}, rounds)


def inference(size: int, batch: int, calls: int) -> dict[str, float]:
    images = tf.random.uniform([batch, size, size, 3], 0, 255)

    def predictor(package: object) -> Callable[[], object]:
        model = package.EfficientNetV2B0(weights=None, input_shape=(size, size, 3))
        predict = tf.function(lambda images: model(images, training=False))
        for _ in range(3):  # tracing, then the allocator's warm-up
            predict(images)
        return lambda: predict(images).numpy()

    return compare({"ours": predictor(effnetv2_keras), "theirs": predictor(tf.keras.applications)}, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="number of imports, and of builds of each network")
    parser.add_argument("--calls", type=int, default=100, help="calls of each network per batch size")
    parser.add_argument("--size", type=int, default=224, help="image side, pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="images per call")
    args = parser.parse_args()

    imported = import_seconds(args.rounds)
    print(f"import after TensorFlow's: {imported['wall']:.3f} s (CPU time {imported['cpu']:.3f} s)", flush=True)
    results = {"build efficientnetv2-s": building(args.rounds)}
    _print("build efficientnetv2-s", results["build efficientnetv2-s"])
    for batch in args.batches:
        name = f"efficientnetv2-b0, {args.size} px, batch {batch}"
        results[name] = inference(args.size, batch, args.calls)
        _print(name, results[name])
    print(json.dumps({"import": imported, **results}))


def _print(name: str, result: dict[str, float]) -> None:
    print(
        f"{name}: ours {result['ours'] * 1e3:.1f} ms, theirs {result['theirs'] * 1e3:.1f} ms, "
        f"ours / theirs {result['ratio']:.3f} (CPU time {result['cpu_ratio']:.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
