"""Fine-tuning on your own folder or list of images, from published ImageNet weights or from weights of your own.

First the classifier trains alone, then all layers do, the lower ones at lower rates, with images that grow. The run
ends early if it no longer gets better, and the best weights are kept. ``--hparam_str=train.ft_init_ckpt=FILE`` starts
from a file or a run of your own, ``train.ft_init_ckpt=`` from random weights.

Source: settings of this package, tuned on the validation images of 3,068 photographs of clothes.
Command: ``python main.py --mode=train --dataset_cfg=finetune --data_dir=FOLDER --model_dir=RUN``.
Result: from ImageNet weights not measured; from weaker weights see docs/results.md.
"""

from __future__ import annotations

import dataclasses

from effnetv2_keras.architecture import variants
from effnetv2_keras.config import USUAL, Config, Facts
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.weights.published import PUBLISHED

from . import base, folder


def get_config(model_name: str | None, facts: Facts = USUAL) -> Config:
    """Returns settings for fine-tuning from the best published weights of the network, or from those in ``facts``.

    Args:
        model_name: network; None is EfficientNetV2-B0.
        facts: number and size of the images, and the weights to start from, if the user names some.

    Raises:
        ConfigError: if no weights are published for the network and the user names none.
    """
    if facts.weights == "":
        return folder.get_config(model_name, facts)
    model_name = model_name or variants.DEFAULT_MODEL
    if facts.weights is None:
        weights = _published(model_name)
        if weights is None:
            raise ConfigError(
                f"No ImageNet weights are published for {model_name}. Name your own, a file or the folder of a run: "
                "--hparam_str=train.ft_init_ckpt=PATH. Or choose a network that has some, such as "
                f"--model_name={variants.DEFAULT_MODEL}. --hparam_str=train.ft_init_ckpt= starts from random weights."
            )
        facts = dataclasses.replace(facts, weights=weights)
    return folder.finetuned(model_name, facts)


def _published(model_name: str) -> str | None:
    """Returns the name of the best published weights of a network for ImageNet's classes; None if there are none."""
    if model_name.startswith(variants.KERAS):
        return "imagenet" if ":" not in model_name[len(variants.KERAS) :] else None
    name = variants.get_spec(model_name).name
    return next((weights for weights in base.IMAGENET_WEIGHTS if (name, weights) in PUBLISHED), None)
