"""Training on your own folder of images: one sub-folder per class, flat or under train / validation / test.

Source: settings of this package for a few thousand photographs, trained from scratch in minutes to hours. The
evaluation crop keeps the whole shorter side.
Command: ``python main.py --mode=train --dataset_cfg=folder --data_dir=FOLDER --model_name=efficientnetv2-b0
--model_dir=RUN``.
Result: the README has one run on photographs. The 30 epochs at the image sizes of the variant are not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, EvalConfig, TrainConfig
from hparams import base


def get_config(model_name: str) -> Config:
    """Returns settings that need no tuning for small data: AdamW, clipped gradients and a cosine schedule.

    The stages are those of the variant, see ``base.progressive_of``.
    """
    config = base.get_base(model_name)
    return config.model_copy(
        update={
            # There are few steps: with a momentum of 0.99, BatchNorm's statistics would lag. Regularization is weak.
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
