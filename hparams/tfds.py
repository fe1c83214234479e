"""Training on any image-classification data set of TensorFlow Datasets, by name.

Source: the settings of the recipe ``folder``.
Command: ``python main.py --mode=train --dataset_cfg=tfds --hparam_str=data.tfds_name=NAME --model_dir=RUN``.
``--data_dir`` is the folder of TensorFlow Datasets.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import USUAL, Config, Facts

from . import folder


def get_config(model_name: str | None, facts: Facts = USUAL) -> Config:
    """Returns the settings of the recipe ``folder``, with TensorFlow Datasets as the source."""
    config = folder.get_config(model_name, facts)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": "tfds"})})
