"""CIFAR-100 from scratch: 100 classes, 50,000 images to train on, 10,000 to evaluate on, of 32 px.

Source: settings of this package, there are none in the paper: progressive from 32 to 64 px, a light RandAugment and
crops that keep a quarter or more, on TensorFlow Datasets' ``cifar100``. A folder with ``train/CLASS`` and
``test/CLASS`` serves too: ``--data_dir=DIR --hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar100 --model_name=efficientnetv2-b0 --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config
from hparams import cifar10


def get_config(model_name: str) -> Config:
    """The recipe of CIFAR-10, on CIFAR-100."""
    config = cifar10.get_config(model_name)
    return config.model_copy(
        update={"data": config.data.model_copy(update={"tfds_name": "cifar100", "num_classes": 100})}
    )
