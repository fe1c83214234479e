"""Flowers from ImageNet weights: 102 classes, 2,040 images to train on, 6,149 to evaluate on.

Source: ``base.finetune``, and the reference code's ``datasets.py``, ``FlowersFt``; Table 9 of the paper. The data is
TensorFlow Datasets' ``oxford_flowers102``: its splits train and validation, of 1,020 images each, are trained on.
Command: ``python main.py --mode=train --dataset_cfg=flowersFt --model_name=efficientnetv2-s --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured. Table 8 of the paper has 97.9 % (S), 98.5 % (M) and 98.8 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig
from hparams import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """The paper's fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(
            source="tfds",
            tfds_name="oxford_flowers102",
            train_split="train+validation",
            eval_split="test",
            num_classes=102,
        ),
        *base.IMAGENET_WEIGHTS,
    )
