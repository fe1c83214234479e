"""Trains the same network by the same plan of stages with the training loop and with Keras' ``fit``, for several seeds.

Both see the same batches, and have the same network, initial weights, loss, Adam with the same learning rates, and
length. What differs is who trains: ``train`` of this package, or ``fit`` with ``progressive_dataset`` and
``FollowStages``, and so the random numbers of dropout and stochastic depth. Prints a line for each run (top-1 of the
last weights on the evaluation split, processor time), and mean and standard deviation over the seeds.

    PYTHONPATH=. python benchmarks/fit_form.py --data_dir DIR --seeds 0 1 2 --epochs 8

``DIR`` holds ``train/CLASS`` and ``validation/CLASS``; without it, the handwritten digits are used.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import numpy as np
import rich.console
import tensorflow as tf

from effnetv2_keras import Config, FollowStages, Splits, evaluation_dataset, progressive_dataset, train
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec
from effnetv2_keras.basics.ending import end_process
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.optim.schedules import WarmupSchedule

NETWORK = ModelSpec(
    "small",
    blocks=(
        BlockSpec("fused_mbconv", 1, 3, 2, 4, 16, 24),
        BlockSpec("fused_mbconv", 1, 3, 2, 4, 24, 32),
        BlockSpec("mbconv", 2, 3, 2, 4, 32, 64, 0.25),
    ),
    head_filters=128,
    train_size=64,
    eval_size=64,
    dropout_rate=0.2,
)
BATCH = 32
"""Images per step."""
RATE = 0.002
"""Highest learning rate; it rises over the first epoch and then falls as a cosine."""


def configuration(options: argparse.Namespace, seed: int) -> Config:
    """Returns the settings of the run, which ``fit`` takes too."""
    changes = {
        "data.source": "folder" if options.data_dir else "digits",
        "data.data_dir": options.data_dir,
        "data.crop_area": (0.35, 1.0),
        "model.bn_momentum": 0.9,
        "model.survival_prob": 0.9,
        "progressive.stages": 4,
        "progressive.image_size.start": options.sizes[0],
        "progressive.image_size.end": options.sizes[1],
        "progressive.dropout_rate.start": 0.1,
        "progressive.dropout_rate.end": 0.3,
        "train.batch_size": BATCH,
        "train.optimizer": "adam",
        "train.lr_base": RATE * 256 / BATCH,
        "train.lr_sched": "cosine",
        "train.lr_warmup_epoch": 1,
        "train.weight_decay": 0,
        "train.label_smoothing": 0.1,
        "train.ema_decay": 0,
        "train.seed": seed,
        "eval.batch_size": 100,
        "eval.isize": options.sizes[1],
        "eval.every_epochs": options.epochs,
        "runtime.tensorboard": False,
        "runtime.preflight": False,
    }
    return Config().with_network(NETWORK).override(changes)


def by_loop(config: Config, splits: Splits) -> float:
    """Returns the top-1 after training with the loop."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = rich.console.Console(quiet=True)
        result = train(config, folder, strategy=make_strategy("cpu"), splits=splits, console=quiet)
    return float(result["top1"])


def by_fit(config: Config, splits: Splits) -> float:
    """Returns the top-1 after training with ``fit``."""
    tf.keras.utils.set_random_seed(config.train.seed)
    steps, epochs = splits.train.num_examples // BATCH, int(config.train.epochs)
    total, warmup = steps * epochs, splits.train.num_examples // BATCH
    plan = config.plan(total)
    model = build_for(config, len(splits.train.class_names))
    rate = WarmupSchedule("cosine", RATE, total, warmup, decay_steps=1, decay_factor=1, floor=0)
    loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.train.label_smoothing)
    metrics = [tf.keras.metrics.CategoricalAccuracy("top1")]
    model.compile(tf.keras.optimizers.Adam(rate, epsilon=1e-8), loss, metrics=metrics)
    dataset = progressive_dataset(
        splits.train, plan, batch_size=BATCH, seed=config.train.seed, steps_per_epoch=steps, data=config.data
    )
    model.fit(dataset, steps_per_epoch=steps, epochs=epochs, callbacks=[FollowStages(plan)], verbose=0)
    evaluation = evaluation_dataset(
        splits.evaluation, image_size=config.eval_size, batch_size=config.eval.batch_size, data=config.data
    )
    return float(model.evaluate(evaluation, verbose=0, return_dict=True)["top1"])


def main() -> None:
    """Trains with each seed in both ways, and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=lambda path: os.path.expanduser(path), help="folder with train, validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=4, help="a multiple of the four stages")
    parser.add_argument(
        "--sizes", type=int, nargs=2, default=[24, 32], help="side of the first and last images, pixels"
    )
    options = parser.parse_args()
    if options.epochs % 4:
        parser.error(f"--epochs is {options.epochs}; it must be a multiple of the four stages")
    results: dict[str, list[float]] = {"loop": [], "fit": []}
    for seed in options.seeds:
        config = configuration(options, seed)
        splits = open_splits(config.data)
        steps = splits.train.num_examples // BATCH
        # As many steps as whole epochs of fit have. The half keeps rounding from losing one.
        share = (steps * options.epochs + 0.5) * BATCH / splits.train.num_examples
        for name, run in (("loop", by_loop), ("fit", by_fit)):
            start = time.process_time()
            epochs = share if name == "loop" else options.epochs
            top1 = run(config.override({"train.epochs": epochs}), splits)
            results[name].append(top1)
            print(f"seed {seed}  {name:<4}  top-1 {top1:.3f}  {time.process_time() - start:.0f} s", flush=True)
    for name, values in results.items():
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        print(f"{name:<4}  {len(values)} runs  top-1 {np.mean(values):.3f} ± {deviation:.3f}")


if __name__ == "__main__":
    main()
    end_process(0)  # else Python waits a minute for iterators of TensorFlow
