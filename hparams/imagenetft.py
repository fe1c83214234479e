"""ImageNet (ILSVRC 2012) from weights of ImageNet-21k.

Source: section 5.2 of the paper; what it leaves open as in the reference code's ``datasets.py``, ``ImagenetFt``. The
data is TensorFlow Datasets' ``imagenet2012``; TFRecord shards and class folders serve too, as in the recipe
``imagenet``, with ``data.source=tfrecord`` or ``folder``. V1 has no weights of ImageNet-21k: name a file by
``train.ft_init_ckpt``.
Command: ``python main.py --mode=train --dataset_cfg=imagenetFt --model_name=efficientnetv2-s --model_dir=RUN``, with
``--data_dir`` for the folder of TensorFlow Datasets.
Result: not measured. The paper has 84.9 % (S), 86.2 % (M), 86.8 % (L) and 87.3 % (XL) top-1.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig
from hparams import base, original


def ORIGINAL(config: Config) -> Config:  # noqa: N802 - the name that every recipe gives it
    """As every fine-tuning, but trained on the images outside minival, of which the reference code has 1,256,144."""
    config = original.finetuned(config)
    return config.model_copy(update={"data": config.data.model_copy(update={"train_split": "train[:1256144]"})})


def get_config(model_name: str) -> Config:
    """Section 5.2 of the paper: 15 epochs of a cosine schedule; weight decay, on which it is silent, as in training."""
    data = DataConfig(source="tfds", tfds_name="imagenet2012", num_classes=1000)
    config = base.finetune(model_name, data, "imagenet21k")
    train = {"epochs": 15, "min_steps": 0, "weight_decay": 1e-5}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})
