"""Your own list of images: files ``train.csv`` and ``validation.csv`` of ``path,label`` rows, or one such file.

Command: ``python main.py --mode=train --dataset_cfg=csv --data_dir=FOLDER --model_name=efficientnetv2-b0
--model_dir=RUN``; ``--data_dir=LIST.csv`` for one list, of which a tenth is held out. Images with several labels:
``--hparam_str=data.multi_label=true``, with labels written ``cat;outdoor``. Settings as for a folder of images.
Result: not measured.
"""

from __future__ import annotations

from effnetv2_keras.config import Config
from hparams import folder


def get_config(model_name: str) -> Config:
    """The folder recipe, reading lists of files."""
    config = folder.get_config(model_name)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": "csv"})})
