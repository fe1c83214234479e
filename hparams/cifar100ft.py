"""CIFAR-100 from ImageNet weights: 100 classes, 50,000 images to train on, 10,000 to evaluate on.

Source: ``base.finetune``, and the reference code's ``datasets.py``, ``Cifar100Ft``; the data is TensorFlow Datasets'
``cifar100``. A folder with ``train/CLASS`` and ``test/CLASS`` serves too: ``--data_dir=DIR
--hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar100Ft --model_name=efficientnetv2-s --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured. Table 8 of the paper has 91.5 % (S), 92.2 % (M) and 92.3 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig
from hparams import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """The paper's fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(source="tfds", tfds_name="cifar100", eval_split="test", num_classes=100),
        *base.IMAGENET_WEIGHTS,
    )
