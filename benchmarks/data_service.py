"""Compares training input from a tf.data service on this machine with input made in the training process.

The input is decode, random crop, flip and RandAugment (2 layers) of 500 x 375 JPEG photographs. The two measurements
alternate, so that other work on the machine slows both alike. Prints the ratio of the medians.

    PYTHONPATH=. python benchmarks/data_service.py --size 224 --batch 16
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from benchmarks.input_pipeline import make_config
from benchmarks.photos import write_photos
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages

ROOT = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def running_service(workers: int) -> Iterator[str]:
    """Runs ``main.py --mode=data_service`` inside a ``with`` block, which receives the value for ``data.service``."""
    command = [sys.executable, "main.py", "--mode=data_service", "--port=0", f"--service_workers={workers}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().partition("data.service=")[2]
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="image side, px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, default=30, help="batches per round")
    parser.add_argument("--workers", type=int, default=1, help="services to start")
    parser.add_argument("--magnitude", type=float, default=15, help="RandAugment magnitude; 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_service(arguments.workers) as service:
        config = make_config(write_photos(pathlib.Path(folder)), arguments.size, arguments.batch, arguments.magnitude)
        source = open_splits(config.data).train
        (stage,) = config.progressive.plan(10**6)
        seconds: dict[str, list[float]] = {"local": [], "service": []}
        for _ in range(arguments.rounds):
            for name, found in seconds.items():
                data = config.override({"data.service": service if name == "service" else None}).data
                plan = InputPlan(data, arguments.batch, None, UnreadableImages("error"))
                batches = iter(single_replica(train_input(source, plan, stage=stage, seed=0, first_step=0)))
                for _ in range(10):  # excludes batches that were prefetched before the clock starts
                    next(batches)
                start = time.perf_counter()
                for _ in range(arguments.batches):
                    next(batches)
                found.append((time.perf_counter() - start) / arguments.batches)
                del batches  # otherwise it would keep prefetching while the other input is timed
                time.sleep(1.0)
    rates = {name: arguments.batch / statistics.median(found) for name, found in seconds.items()}
    ratio = rates["service"] / rates["local"]
    print(f"local {rates['local']:.0f} images/s, service {rates['service']:.0f} images/s: ratio {ratio:.2f}")
    print(json.dumps({**rates, "ratio": ratio, **vars(arguments)}))


if __name__ == "__main__":
    main()
