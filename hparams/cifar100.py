"""Training on CIFAR-100 from scratch: 100 classes, 50,000 training and 10,000 evaluation images of 32 px.

Source: settings of this package, because the paper has none: progressive learning from 32 to 64 px, weak RandAugment,
and crops of at least a quarter of the image area.
Data: ``cifar100`` of TensorFlow Datasets, or a folder with ``train/CLASS`` and ``test/CLASS``: ``--data_dir=DIR
--hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar100 --model_name=efficientnetv2-b0 --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config

from . import cifar10


def get_config(model_name: str) -> Config:
    """Returns the settings of the recipe ``cifar10``, with CIFAR-100 as the data set."""
    config = cifar10.get_config(model_name)
    return config.model_copy(
        update={"data": config.data.model_copy(update={"tfds_name": "cifar100", "num_classes": 100})}
    )
