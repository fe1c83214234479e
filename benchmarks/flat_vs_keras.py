"""Times building and training the models of ``EfficientNetV2B0`` and the others against ``tf.keras.applications``.

- Building: with random weights and a top.
- Training: one ``train_on_batch`` step with SGD, after one that traces it.

The two packages alternate, and each round swaps the order, so that other work on the machine slows both alike. Prints
medians and the ratio ours / theirs (below 1: ours is faster) of wall time and of CPU time; then a line of JSON.

    PYTHONPATH=. python benchmarks/flat_vs_keras.py --rounds 9 --steps 20 --size 96 --batch 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import effnetv2_keras

SIDES = {"ours": effnetv2_keras, "theirs": tf.keras.applications}


def compare(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns median seconds of two alternating functions, and the ratios of wall and CPU time."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in sorted(contestants, reverse=bool(turn % 2)):
            start = time.perf_counter(), time.process_time()
            contestants[name]()
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    ours, theirs = (statistics.median(wall[name]) for name in ("ours", "theirs"))
    cpu_ratio = statistics.median(cpu["ours"]) / statistics.median(cpu["theirs"])
    return {"ours": ours, "theirs": theirs, "ratio": ours / theirs, "cpu_ratio": cpu_ratio}


def building(network: str, rounds: int) -> dict[str, float]:
    def builder(package: object) -> Callable[[], None]:
        def build() -> None:
            getattr(package, network)(weights=None)
            tf.keras.backend.clear_session()

        build()  # excludes work that is only done the first time
        return build

    return compare({name: builder(package) for name, package in SIDES.items()}, rounds)


def training(network: str, size: int, batch: int, steps: int) -> dict[str, float]:
    images = np.random.default_rng(0).integers(0, 256, [batch, size, size, 3]).astype(np.float32)
    labels = np.arange(batch) % 10

    def trainer(package: object) -> Callable[[], object]:
        model = getattr(package, network)(weights=None, classes=10, input_shape=(size, size, 3))
        model.compile("sgd", "sparse_categorical_crossentropy")
        for _ in range(2):  # excludes tracing and the warm-up of the allocator
            model.train_on_batch(images, labels)
        return lambda: model.train_on_batch(images, labels)

    return compare({name: trainer(package) for name, package in SIDES.items()}, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["EfficientNetV2B0", "EfficientNetB0"])
    parser.add_argument("--rounds", type=int, default=9, help="builds of each network")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each network")
    parser.add_argument("--size", type=int, default=96, help="image side, pixels")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    args = parser.parse_args()

    results = {}
    for network in args.networks:
        for what, measure in (
            ("build", lambda network: building(network, args.rounds)),
            ("train step", lambda network: training(network, args.size, args.batch, args.steps)),
        ):
            found = results[f"{what} {network}"] = measure(network)
            print(
                f"{what} {network}: ours {found['ours'] * 1e3:.1f} ms, theirs {found['theirs'] * 1e3:.1f} ms, ours / "
                f"theirs {found['ratio']:.3f} (CPU time {found['cpu_ratio']:.3f})",
                flush=True,
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
