"""Cars (Stanford Cars) from ImageNet weights: 196 classes, 8,144 images to train on, 8,041 to evaluate on.

Source: ``base.finetune``, and the reference code's ``datasets.py``, ``CarsFt``. TensorFlow Datasets' ``cars196`` cannot
be downloaded any more. The data is a folder with ``DIR/train/CLASS/*.jpg`` and ``DIR/test/CLASS/*.jpg``, one sub-folder
for each of the 196 classes; a ``cars196`` that is prepared already serves too: ``--data_dir=TFDS
--hparam_str=data.source=tfds``.
Command: ``python main.py --mode=train --dataset_cfg=carsFt --data_dir=DIR --model_name=efficientnetv2-s
--model_dir=RUN``
Result: not measured. Table 8 of the paper has 93.8 % (S), 94.6 % (M) and 95.1 % (L).
"""

from __future__ import annotations

from effnetv2_keras.config import Config, DataConfig
from hparams import base, original

ORIGINAL = original.finetuned


def get_config(model_name: str) -> Config:
    """The paper's fine-tuning from ImageNet weights."""
    return base.finetune(
        model_name,
        DataConfig(source="folder", tfds_name="cars196", eval_split="test", num_classes=196),
        *base.IMAGENET_WEIGHTS,
    )
