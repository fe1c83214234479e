"""tf_flowers from ImageNet weights: 5 classes, 3,670 images, of which 70 % are trained on.

Source: ``base.finetune``, and the reference code's ``datasets.py``, ``TFFlowersFt``, which evaluates on images that it
trains on as well (``train[30%:]``); here the last 30 % are held out. The data is TensorFlow Datasets' ``tf_flowers``.
Command: ``python main.py --mode=train --dataset_cfg=tfflowersFt --model_name=efficientnetv2-s --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured.
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
            source="tfds", tfds_name="tf_flowers", train_split="train[:70%]", eval_split="train[70%:]", num_classes=5
        ),
        *base.IMAGENET_WEIGHTS,
    )
