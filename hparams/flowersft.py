"""Fine-tuning on Flowers from ImageNet weights: 102 classes, 2,040 training and 6,149 evaluation images.

Source: ``base.finetune``, and ``FlowersFt`` in ``datasets.py`` of the reference code; Table 9 of the paper.
Data: ``oxford_flowers102`` of TensorFlow Datasets. Its splits train and validation, with 1,020 images each, are the
training images.
Command: ``python main.py --mode=train --dataset_cfg=flowersFt --model_name=efficientnetv2-s --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured. Table 8 of the paper gives 97.9 % (S), 98.5 % (M) and 98.8 % (L).
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
            source="tfds",
            tfds_name="oxford_flowers102",
            train_split="train+validation",
            eval_split="test",
            num_classes=102,
        ),
        *base.IMAGENET_WEIGHTS,
    )
