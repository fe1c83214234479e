"""Times a training step of our EfficientNetV2-B0 against one of ``tf.keras.applications.EfficientNetV2B0``.

Loss, optimizer, L2, batch, data and number format are the same; only the network differs. The steps of the two
alternate, so that other work on the machine slows both alike. Prints for each image size the median times and the ratio
theirs / ours (above 1: ours is faster) of wall time and of CPU time, on which other work has less effect; then a line
of JSON.

    PYTHONPATH=. python benchmarks/train_step_vs_keras_applications.py --sizes 128 224 --batch 16 --steps 2 --rounds 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import tensorflow as tf

from effnetv2_keras.models import build_model, stochastic_scope

NUM_CLASSES = 1000
WEIGHT_DECAY = 1e-5


def make_step(model: tf.keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Callable[[], None]:
    optimizer = tf.keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.9, epsilon=1e-3)
    optimizer.build(model.trainable_variables)
    kernels = [variable for variable in model.trainable_variables if "kernel" in variable.name]

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([0, tf.cast(optimizer.iterations, tf.int32)])
        with tf.GradientTape() as tape, stochastic_scope(seed):
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
            loss += WEIGHT_DECAY * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    return lambda: step(images, labels).numpy()


def measure(size: int, batch: int, steps: int, rounds: int) -> dict[str, float]:
    images = tf.random.uniform([batch, size, size, 3], 0, 255)
    labels = tf.one_hot(tf.random.uniform([batch], 0, NUM_CLASSES, tf.int32), NUM_CLASSES)
    shape = (size, size, 3)
    keras_model = tf.keras.applications.EfficientNetV2B0(
        weights=None, include_preprocessing=True, classifier_activation=None, input_shape=shape
    )
    contestants = {
        "ours": make_step(build_model("efficientnetv2-b0", input_shape=shape), images, labels),
        "theirs": make_step(keras_model, images, labels),
    }
    for step in contestants.values():
        for _ in range(3):  # excludes tracing and the warm-up of the allocator
            step()
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds * steps):
        for name in sorted(contestants, reverse=bool(turn % 2)):
            start = time.perf_counter(), time.process_time()
            contestants[name]()
            wall[name].append(time.perf_counter() - start[0])
            cpu[name].append(time.process_time() - start[1])
    ours, theirs = statistics.median(wall["ours"]), statistics.median(wall["theirs"])
    cpu_ratio = statistics.median(cpu["theirs"]) / statistics.median(cpu["ours"])
    return {"size": size, "ours": ours, "theirs": theirs, "ratio": theirs / ours, "cpu_ratio": cpu_ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224], help="image sides, pixels")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--steps", type=int, default=2, help="steps of each network per round")
    parser.add_argument("--rounds", type=int, default=20, help="rounds per size")
    args = parser.parse_args()

    results = []
    for size in args.sizes:
        result = measure(size, args.batch, args.steps, args.rounds)
        results.append(result)
        print(
            f"{size} px: ours {result['ours'] * 1e3:.0f} ms, theirs {result['theirs'] * 1e3:.0f} ms, "
            f"ratio {result['ratio']:.3f} (CPU time {result['cpu_ratio']:.3f})",
            flush=True,
        )
    print(json.dumps({"batch": args.batch, "steps": args.steps * args.rounds, "results": results}))


if __name__ == "__main__":
    main()
