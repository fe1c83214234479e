"""Fine-tuning on Cars (Stanford Cars) from ImageNet weights: 196 classes, 8,144 training and 8,041 evaluation images.

Source: ``base.finetune``, and ``CarsFt`` in ``datasets.py`` of the reference code.
Data: a folder with ``DIR/train/CLASS/*.jpg`` and ``DIR/test/CLASS/*.jpg``, with one sub-folder for each of the 196
classes. The data set ``cars196`` of TensorFlow Datasets can no longer be downloaded. If you have already prepared it,
you can use it with ``--data_dir=TFDS --hparam_str=data.source=tfds``.
Command: ``python main.py --mode=train --dataset_cfg=carsFt --data_dir=DIR --model_name=efficientnetv2-s
--model_dir=RUN``
Result: not measured. Table 8 of the paper gives 93.8 % (S), 94.6 % (M) and 95.1 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig

from . import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """Returns the settings of the paper for fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(source="folder", tfds_name="cars196", eval_split="test", num_classes=196),
        *base.IMAGENET_WEIGHTS,
    )
