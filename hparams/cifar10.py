"""Training on CIFAR-10 from scratch: 10 classes, 50,000 training and 10,000 evaluation images of 32 px.

Source: settings of this package, because the paper has none: progressive learning from 32 to 64 px, weak RandAugment,
and crops of at least a quarter of the image area.
Data: ``cifar10`` of TensorFlow Datasets, or a folder with ``train/CLASS`` and ``test/CLASS``: ``--data_dir=DIR
--hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar10 --model_name=efficientnetv2-b0 --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: 8 epochs of B0 with half an epoch of warm-up, seed 0, reach 0.530 top-1 (0.528 with the moving average) in 27
minutes on two CPU cores that other programs also used. The 100 epochs are not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig, EvalConfig, ProgressiveConfig, TrainConfig, ramp

from . import base


def get_config(model_name: str) -> Config:
    """Returns settings with four stages from 32 to 64 px, AdamW, clipped gradients and a cosine schedule."""
    config = base.get_base(model_name)
    return config.model_copy(
        update={
            # Epochs are short: with a momentum of 0.99, BatchNorm's statistics would lag. Few blocks are dropped.
            "model": config.model.model_copy(update={"bn_momentum": 0.9, "survival_prob": 0.9}),
            "progressive": ProgressiveConfig(
                stages=4, image_size=ramp(32, 64), randaug_magnitude=ramp(2, 8), dropout_rate=ramp(0.1, 0.3)
            ),
            "train": TrainConfig(
                epochs=100,
                batch_size=128,
                optimizer="adamw",
                lr_base=0.004,
                lr_sched="cosine",
                lr_warmup_epoch=5,
                weight_decay=0.05,
                ema_decay=0.999,
                gclip=1.0,
            ),
            "eval": EvalConfig(batch_size=200, isize=64),
            "data": DataConfig(
                source="tfds",
                tfds_name="cifar10",
                eval_split="test",
                num_classes=10,
                crop_area=(0.25, 1.0),
                ra_num_layers=1,
                eval_crop=1.0,
            ),
        }
    )
