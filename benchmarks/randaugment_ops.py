"""Measures the cost of each RandAugment operation, of RandAugment and of AutoAugment in ``Dataset.map``, on one core.

Times are CPU time, on which other work on the machine has little effect. The cost of an operation is the time that it
adds to a map that only flips one bit of the image.

    PYTHONPATH=. python benchmarks/randaugment_ops.py --image_size=224 --arithmetic=clean
"""

from __future__ import annotations

import argparse
import time
from typing import Callable

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from effnetv2_keras.data.augment.augmentation import AUGMENTATIONS, RANDAUGMENT_OPS, Augmentation
from effnetv2_keras.data.augment.randaugment import Op


def milliseconds(function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], image: np.ndarray, images: int) -> float:
    """Returns the CPU time per image of ``function(image, seed)``, milliseconds: the minimum of five rounds."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False

    def call(index: tf.Tensor) -> tf.Tensor:
        # The image depends on the index, so that TensorFlow cannot compute the result once and reuse it.
        changed = tf.bitwise.bitwise_xor(tf.constant(image), tf.cast(index % 2, tf.uint8))
        return function(changed, tf.stack([tf.cast(index, tf.int32), 0]))

    iterator = iter(tf.data.Dataset.range(6 * images).map(call).with_options(options))
    rounds = []
    for _ in range(6):
        start = time.process_time()
        for _ in range(images):
            next(iterator)
        rounds.append((time.process_time() - start) / images * 1000.0)
    return min(rounds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", type=int, default=224, help="side of the image, pixels")
    parser.add_argument("--magnitude", type=float, default=15.0, help="RandAugment magnitude, 0 to 30")
    parser.add_argument("--num_layers", type=int, default=2, help="RandAugment operations per image")
    parser.add_argument("--arithmetic", choices=sorted(RANDAUGMENT_OPS), default="clean")
    parser.add_argument("--images", type=int, default=200, help="images per round")
    options = parser.parse_args()

    image = np.random.default_rng(0).integers(0, 256, (options.image_size, options.image_size, 3), dtype=np.uint8)
    floor = milliseconds(lambda image, seed: image, image, options.images)
    print(f"{options.image_size} px, magnitude {options.magnitude:g}: CPU time, ms per image, less the")
    print(f"{floor:.3f} ms of the empty map")

    def inside_map(op: Op) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        def applied(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            place = tf.random.stateless_uniform([2], seed)
            return op.apply(image, op.at(options.magnitude), sign=tf.sign(place[0] - 0.5), place=place)

        return applied

    ops = RANDAUGMENT_OPS[options.arithmetic]
    costs = {name: milliseconds(inside_map(op), image, options.images) - floor for name, op in ops.items()}
    for name, cost in costs.items():
        print(f"{name:24s}{cost:8.3f}")
    print(f"{'mean of the operations':24s}{np.mean(list(costs.values())):8.3f}")

    for name in AUGMENTATIONS:
        whole = Augmentation(name, options.arithmetic, options.num_layers)
        strengths = whole.strengths_at(options.magnitude)

        cost = (
            milliseconds(
                lambda image, seed, whole=whole, strengths=strengths: whole(image, seed=seed, strengths=strengths),
                image,
                options.images,
            )
            - floor
        )
        print(f"{name:24s}{cost:8.3f}")


if __name__ == "__main__":
    main()
