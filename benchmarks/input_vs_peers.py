"""Compares input pipelines: images/s of decoding, random crop to a square, flip and RandAugment (2 layers).

This package with and without RandAugment, torchvision (``v2.RandAugment`` in a DataLoader of two workers) and keras-cv
(``RandAugment`` in ``Dataset.map``) read the same 500 x 375 JPEG photographs, each in its own process. Their rounds
alternate, so that other work on the machine slows all alike. Prints medians. Set ``TORCHVISION_PYTHON`` and
``KERAS_CV_PYTHON`` to the interpreters of environments with these libraries; a library without an interpreter is left
out.

    TORCHVISION_PYTHON=torch_env/bin/python PYTHONPATH=. python benchmarks/input_vs_peers.py --size 224 --batch 32
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Callable

MakeBatches = Callable[[], Iterator[Any]]
MAGNITUDE = 15  # of 30


def this_package(photos: pathlib.Path, size: int, batch: int, *, magnitude: int = MAGNITUDE) -> MakeBatches:
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
    from effnetv2_keras.config import DataConfig
    from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
    from effnetv2_keras.data.splits import open_splits
    from effnetv2_keras.data.unreadable import UnreadableImages
    from effnetv2_keras.progressive import Stage

    data = DataConfig(data_dir=str(photos))
    stage = Stage(0, 0, 10**6, size, float(magnitude), 0.0, 0.0, 0.0)
    plan = InputPlan(data, batch, None, UnreadableImages("error"))
    source = open_splits(data).train
    return lambda: iter(single_replica(train_input(source, plan, stage=stage, seed=0, first_step=0)))


def torchvision(photos: pathlib.Path, size: int, batch: int) -> MakeBatches:
    import torch
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(size, scale=(0.05, 1.0), antialias=False), v2.RandomHorizontalFlip()]
    change = [v2.RandAugment(num_ops=2, magnitude=MAGNITUDE), v2.PILToTensor()]
    images = ImageFolder(str(photos / "train"), transform=v2.Compose([*steps, *change]))
    torch.set_num_threads(1)
    sampler = RandomSampler(images, replacement=True, num_samples=10**6)
    return lambda: iter(DataLoader(images, batch_size=batch, sampler=sampler, num_workers=2))


def keras_cv(photos: pathlib.Path, size: int, batch: int) -> MakeBatches:
    import keras_cv
    import tensorflow as tf

    crop = keras_cv.layers.RandomCropAndResize((size, size), (0.05, 1.0), (0.75, 4 / 3))
    change = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2, magnitude=MAGNITUDE / 30)

    def load(path: Any) -> Any:
        image = crop(tf.cast(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), tf.float32))
        return change(tf.image.random_flip_left_right(image))

    def batches() -> Iterator[Any]:
        files = tf.data.Dataset.list_files(str(photos / "train" / "*" / "*.jpg")).repeat()
        loaded = files.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        return iter(loaded.batch(batch).prefetch(tf.data.AUTOTUNE))

    return batches


CONTENDERS: dict[str, tuple[Callable[[pathlib.Path, int, int], MakeBatches], str | None]] = {
    "this package": (this_package, None),
    "without RandAugment": (functools.partial(this_package, magnitude=0), None),
    "torchvision": (torchvision, "TORCHVISION_PYTHON"),
    "keras-cv": (keras_cv, "KERAS_CV_PYTHON"),
}


def serve(name: str, options: argparse.Namespace) -> None:
    """Runs a round for each line of standard input, and prints its images/s."""
    make_batches = CONTENDERS[name][0](pathlib.Path(options.photos), options.size, options.batch)
    for _ in sys.stdin:
        batches = make_batches()  # new in each round, so that it does not prefetch during the rounds of others
        for _ in range(2):
            next(batches)
        start = time.perf_counter()
        for _ in range(options.batches):
            next(batches)
        seconds = time.perf_counter() - start
        del batches
        print(f"images/s {options.batches * options.batch / seconds}", flush=True)


def start(name: str, interpreter: str, arguments: list[str]) -> subprocess.Popen[str]:
    command = [interpreter, __file__, "--contender", name, *arguments]
    root = str(pathlib.Path(__file__).parent.parent)
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def one_round(name: str, process: subprocess.Popen[str]) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:  # skips what the libraries print
        if line.startswith("images/s "):
            return float(line.split()[1])
    raise SystemExit(
        f"The process of {name} ended early. To see why, run it yourself: --contender '{name}' --photos FOLDER."
    )


def compare(options: argparse.Namespace) -> None:
    from benchmarks.photos import write_photos

    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(pathlib.Path(folder))
        settings = {"photos": photos, "size": options.size, "batch": options.batch, "batches": options.batches}
        arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        processes = {}
        for name, (_, variable) in CONTENDERS.items():
            interpreter = os.environ.get(variable) if variable else sys.executable
            if interpreter:
                processes[name] = start(name, interpreter, arguments)
            else:
                print(f"{name}: left out; set {variable} to the interpreter of an environment with this library")
        rates: dict[str, list[float]] = {name: [] for name in processes}
        for number in range(options.rounds + 1):
            for name, process in processes.items():
                rate = one_round(name, process)
                if number:  # the first round is a warm-up
                    rates[name].append(rate)
        for process in processes.values():
            process.communicate()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:20s}{median:8.0f} images/s, this package {medians['this package'] / median:.2f} times as fast")
    print(json.dumps({"medians": medians, "rounds": rates, "size": options.size, "batch": options.batch}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="image side, px")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=20, help="batches per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", help=argparse.SUPPRESS)
    parser.add_argument("--contender", choices=sorted(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(options.contender, options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
