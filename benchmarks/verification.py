"""Measures the check of every image file before the first step, on PNG files of 32 x 32 px of noise.

The first check reads, decodes and hashes every file; the second finds them in the cache. Prints both times.

    PYTHONPATH=. python benchmarks/verification.py --images 60000
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np
import PIL.Image

import effnetv2_keras.environment  # must precede the import of TensorFlow
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.verification import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60000)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[effnetv2_keras.environment.CACHE_VARIABLE] = f"{folder}/cache"
        for number in range(arguments.images):
            path = pathlib.Path(folder, "images", str(number % 10), f"{number:06d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        data = DataConfig(data_dir=f"{folder}/images")
        splits = open_splits(data)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            verify({"training": splits.train, "evaluation": splits.evaluation}, data)
            seconds.append(time.perf_counter() - start)
    print(f"first check {seconds[0]:.1f} s, second check {seconds[1]:.1f} s")
    print(json.dumps({"first": seconds[0], "second": seconds[1], "load": os.getloadavg()[0], **vars(arguments)}))


if __name__ == "__main__":
    main()
