"""Fine-tuning on CIFAR-100 from ImageNet weights: 100 classes, 50,000 training and 10,000 evaluation images.

Source: ``base.finetune``, and ``Cifar100Ft`` in ``datasets.py`` of the reference code.
Data: ``cifar100`` of TensorFlow Datasets, or a folder with ``train/CLASS`` and ``test/CLASS``: ``--data_dir=DIR
--hparam_str=data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=cifar100Ft --model_name=efficientnetv2-s --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured. Table 8 of the paper gives 91.5 % (S), 92.2 % (M) and 92.3 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig

from . import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """Returns the settings of the paper for fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(source="tfds", tfds_name="cifar100", eval_split="test", num_classes=100),
        *base.IMAGENET_WEIGHTS,
    )
