"""Training on your own list of images: ``train.csv`` and ``validation.csv`` with ``path,label`` rows, or one such file.

Source: the settings of the recipe ``folder``.
Command: ``python main.py --mode=train --dataset_cfg=csv --data_dir=FOLDER --model_name=efficientnetv2-b0
--model_dir=RUN``. With one list, use ``--data_dir=LIST.csv``; a tenth of it is held out. If images have
several labels, write them as ``cat;outdoor`` and use
``--hparam_str=data.multi_label=true,train.loss_type=sigmoid``.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import USUAL, Config, Facts

from . import folder


def get_config(model_name: str | None, facts: Facts = USUAL) -> Config:
    """Returns the settings of the recipe ``folder``, with lists of files as the data set."""
    config = folder.get_config(model_name, facts)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": "csv"})})
