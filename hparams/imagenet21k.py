"""Pretraining on ImageNet-21k: 21,843 classes, about 13 million images; an image may have several classes.

Source: ``ImageNet21k`` in ``datasets.py`` of the reference code: one stage of 224 px, no augmentation, dropout or
stochastic depth, and a cosine schedule of 60 epochs. The pretrained weights of the reference code have 21,843 classes.
The paper says 21,841; for that number use ``data.num_classes=21841``.
Data: TFRecord shards ``DIR/imagenet21k-*`` with the features ``image``, an encoded image, and ``labels``, any number of
int64 labels counted from 0. The first hundredth of the shards is held out. (The reference code holds out 100,357
images, 16 shards.) TensorFlow Datasets does not have this data set: write the shards from the class archives of the
fall 2011 release, https://image-net.org.
Command: ``python main.py --mode=train --dataset_cfg=imagenet21k --data_dir=DIR --model_name=efficientnetv2-s
--model_dir=RUN``
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig, EvalConfig, TrainConfig

from . import base, original

ORIGINAL = original.unaugmented


def get_config(model_name: str) -> Config:
    """Returns the settings of the reference code for pretraining, which are the same for every variant."""
    return Config(
        model=base.get_base(model_name).model.model_copy(update={"survival_prob": 1.0}),
        progressive=base.constant(224),
        train=TrainConfig(epochs=60, lr_base=0.008, lr_sched="cosine", lr_warmup_epoch=1, label_smoothing=0.0),
        eval=EvalConfig(batch_size=128, isize=224),
        data=DataConfig(
            source="tfrecord",
            train_split="imagenet21k[1%:]",
            eval_split="imagenet21k[:1%]",
            image_key="image",
            label_key="labels",
            first_label=0,
            multi_label=True,
            num_classes=21843,
        ),
    )
