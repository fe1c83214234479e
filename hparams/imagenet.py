"""Training on ImageNet (ILSVRC 2012) from scratch: 1000 classes, 1,281,167 training and 50,000 evaluation images.

Source: section 5.1 and Table 6 of the paper. Settings that these do not give (5 epochs of warm-up, label smoothing 0.1)
are from ``ImageNet`` in ``datasets.py`` of the reference code.
Data: one of

- TFRecord shards of the reference code, ``DIR/train-00000-of-01024`` and ``DIR/validation-00000-of-00128``:
  ``--data_dir=DIR``;
- ``imagenet2012`` of TensorFlow Datasets: ``--hparam_str=data.source=tfds``;
- class folders ``DIR/train/n01440764/*.JPEG`` and ``DIR/validation/n01440764/*.JPEG``:
  ``--data_dir=DIR --hparam_str=data.source=folder``.

To tune on the paper's minival, which is 2 % of the training images, add
``data.train_split=train[2%:],data.eval_split=train[:2%]`` to ``--hparam_str``, with any of these.
Command: ``python main.py --mode=train --dataset_cfg=imagenet --data_dir=DIR --model_name=efficientnetv2-s
--model_dir=RUN``
Result: not measured. The paper gives 83.9 % (S), 85.1 % (M) and 85.7 % (L) top-1.
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig, EvalConfig

from . import base, original

ORIGINAL = original.pretrained


def get_config(model_name: str) -> Config:
    """Returns the settings of the paper: 350 epochs with a global batch of 4096 images."""
    return base.get_base(model_name).model_copy(
        update={
            "eval": EvalConfig(batch_size=8),
            "data": DataConfig(source="tfrecord", tfds_name="imagenet2012", num_classes=1000),
        }
    )
