"""Times the training step of EfficientNetV2-B0 in two environments, given by their interpreters.

Each environment has its own process. Their steps alternate, so that other work on the machine slows both alike. Prints
for each image size the median times and their ratio, second / first; then a line of JSON.

    PYTHONPATH=. python benchmarks/environments.py .venv/bin/python .venv3.12/bin/python
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CHILD = "--child"


def serve(size: int, batch: int) -> None:
    """Prints TensorFlow's version; then, for each line of standard input, runs a step and prints its time, seconds."""
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import tensorflow as tf

    import hparams
    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.search.step_time import stepper

    config = hparams.load("imagenet", "efficientnetv2-b0").override({"train.batch_size": batch})
    stage = config.plan(1000)[-1]
    stage = type(stage)(**{**vars(stage), "image_size": size})
    step = stepper(config, make_strategy("cpu"), stage, 1000, config.spec)
    for _ in range(3):  # excludes tracing and the warm-up of the allocator
        step()
    print(tf.__version__, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def measure(pythons: list[str], size: int, batch: int, steps: int) -> dict[str, object]:
    processes = [
        subprocess.Popen(
            [python, __file__, CHILD, str(size), str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for python in pythons
    ]
    versions = [process.stdout.readline().strip() for process in processes]
    seconds: list[list[float]] = [[], []]
    for turn in range(steps):
        for number in (0, 1) if turn % 2 else (1, 0):
            print(file=processes[number].stdin, flush=True)
            seconds[number].append(float(processes[number].stdout.readline()))
    for process in processes:
        process.communicate()
    first, second = map(statistics.median, seconds)
    return {"size": size, "versions": versions, "seconds": [first, second], "ratio": second / first}


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        serve(*map(int, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs=2, help="the two interpreters")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224], help="image sides, pixels")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--steps", type=int, default=30, help="steps in each environment")
    arguments = parser.parse_args()
    results = [measure(arguments.pythons, size, arguments.batch, arguments.steps) for size in arguments.sizes]
    for result in results:
        (one, other), (first, second) = result["versions"], result["seconds"]
        print(
            f"{result['size']} px: TensorFlow {one} {first * 1e3:.0f} ms, {other} {second * 1e3:.0f} ms, "
            f"ratio {result['ratio']:.3f}"
        )
    print(json.dumps({"batch": arguments.batch, "steps": arguments.steps, "results": results}))


if __name__ == "__main__":
    main()
