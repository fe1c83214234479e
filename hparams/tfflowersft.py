"""Fine-tuning on tf_flowers from ImageNet weights: 5 classes, 3,670 images; 70 % for training, 30 % for evaluation.

Source: ``base.finetune``, and ``TFFlowersFt`` in ``datasets.py`` of the reference code. The evaluation split of the
reference code, ``train[30%:]``, contains training images. Here the last 30 % are held out.
Data: ``tf_flowers`` of TensorFlow Datasets.
Command: ``python main.py --mode=train --dataset_cfg=tfflowersFt --model_name=efficientnetv2-s --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig

from . import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """Returns the settings of the paper for fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(
            source="tfds", tfds_name="tf_flowers", train_split="train[:70%]", eval_split="train[70%:]", num_classes=5
        ),
        *base.IMAGENET_WEIGHTS,
    )
