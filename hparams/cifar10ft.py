"""CIFAR-10 from ImageNet weights: 10 classes, 50,000 images to train on, 10,000 to evaluate on.

Source: ``base.finetune``, and the reference code's ``datasets.py``, ``Cifar10Ft``; the data is TensorFlow Datasets'
``cifar10``. A folder with ``train/CLASS`` and ``test/CLASS`` serves too: ``--data_dir=DIR
--hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar10Ft --model_name=efficientnetv2-s --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured. Table 8 of the paper has 98.7 % (S), 99.0 % (M) and 99.1 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig
from hparams import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """The paper's fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(source="tfds", tfds_name="cifar10", eval_split="test", num_classes=10),
        *base.IMAGENET_WEIGHTS,
    )
