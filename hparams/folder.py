"""Your own folder of images: one sub-folder per class, flat or under train / validation / test.

Command: ``python main.py --mode=train --dataset_cfg=folder --data_dir=FOLDER --model_name=efficientnetv2-b0
--model_dir=RUN``. The settings aim at a few thousand photographs, trained from scratch in minutes to hours; the
evaluation crop keeps the whole shorter side.
Result: the README has one run on photographs; the 30 epochs at the variant's own sizes are not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, EvalConfig, TrainConfig
from hparams import base


def get_config(model_name: str) -> Config:
    """The variant's own stages; AdamW, clipped gradients and a cosine schedule, which need no tuning for small data."""
    config = base.get_base(model_name)
    return config.model_copy(
        update={
            # Few steps: BatchNorm with 0.99 would lag behind, and little is dropped or distorted.
            "model": config.model.model_copy(update={"bn_momentum": 0.9, "survival_prob": 0.9}),
            "train": TrainConfig(
                epochs=30,
                batch_size=32,
                optimizer="adamw",
                lr_base=0.016,
                lr_sched="cosine",
                lr_warmup_epoch=1,
                weight_decay=0.01,
                ema_decay=0.999,
                gclip=1.0,
            ),
            "eval": EvalConfig(batch_size=32),
            "data": config.data.model_copy(update={"ra_num_layers": 1}),
        }
    )
