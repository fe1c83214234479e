"""Fine-tuning on ImageNet (ILSVRC 2012) from weights pretrained on ImageNet-21k.

Source: section 5.2 of the paper. Settings that it does not give are from ``ImagenetFt`` in ``datasets.py`` of the
reference code. No ImageNet-21k weights are published for V1: give a file with ``train.ft_init_ckpt``.
Data: ``imagenet2012`` of TensorFlow Datasets; or TFRecord shards or class folders as in the recipe ``imagenet``, with
``data.source=tfrecord`` or ``data.source=folder``.
Command: ``python main.py --mode=train --dataset_cfg=imagenetFt --model_name=efficientnetv2-s --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured. The paper gives 84.9 % (S), 86.2 % (M), 86.8 % (L) and 87.3 % (XL) top-1.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig

from . import base, original


def ORIGINAL(config: Config) -> Config:  # noqa: N802 - has the same name in every recipe
    """Returns the fine-tuning settings of the reference code, without minival: it trains on 1,256,144 images."""
    config = original.finetuned(config)
    return config.model_copy(update={"data": config.data.model_copy(update={"train_split": "train[:1256144]"})})


def get_config(model_name: str) -> Config:
    """Returns the settings of section 5.2 of the paper: a cosine schedule of 15 epochs.

    The section does not mention weight decay, so it is the same as in training from scratch.
    """
    data = DataConfig(source="tfds", tfds_name="imagenet2012", num_classes=1000)
    config = base.finetune(model_name, data, "imagenet21k")
    train = {"epochs": 15, "min_steps": 0, "weight_decay": 1e-5}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})
