"""Training on your own folder of images: one sub-folder per class, flat or under train / validation / test.

The settings depend on the number and the size of your images, and on whether the run starts from weights
(``train.ft_init_ckpt``); ``--mode=plan`` prints what was chosen.

Source: settings of this package, tuned on the validation images of 3,068 photographs of clothes.
Command: ``python main.py --mode=train --dataset_cfg=folder --data_dir=FOLDER --model_dir=RUN``.
Result: 0.796 test top-1 from random weights on these photographs (mean of three seeds), in 15 minutes of one CPU core;
see docs/results.md.
"""

from __future__ import annotations

from typing import Any

from effnetv2_keras.architecture import variants
from effnetv2_keras.config import (
    USUAL,
    Config,
    DataConfig,
    EvalConfig,
    Facts,
    ModelConfig,
    ProgressiveConfig,
    TrainConfig,
    ramp,
)

from . import base

_SMALLEST_SIDE = 32
"""Images are not trained on below this size, pixels; smaller ones are enlarged."""


def get_config(model_name: str | None, facts: Facts = USUAL) -> Config:
    """Returns settings that suit the images: AdamW, clipped gradients, a cosine schedule and mild augmentation.

    Args:
        model_name: network; None chooses one: EfficientNetV2-B0 if the run starts from weights, otherwise the smallest
            that has enough parameters for the number of images.
        facts: number and size of the images, and the weights to start from.
    """
    if facts.weights:
        return finetuned(model_name or variants.DEFAULT_MODEL, facts)
    return from_scratch(model_name or _network_for(facts.num_train), facts)


def from_scratch(model_name: str, facts: Facts) -> Config:
    """Returns settings for random initial weights; about 200,000 images are seen, in 20 to 100 epochs."""
    return _settings(
        model_name, facts, epochs=_between(20, 200_000 / facts.num_train, 100), lr_warmup_epoch=1, ema_decay=0.999
    )


def finetuned(model_name: str, facts: Facts) -> Config:
    """Returns settings for a start from weights: first the classifier alone, then all layers at lower rates.

    About 30,000 images are seen, in 5 to 30 epochs; a tenth of these trains the classifier alone. The lowest layers
    have half of the learning rate. From weights of CIFAR-10, on the validation images of the photographs of clothes,
    this reached 0.745 in 15 epochs; a quarter of the rate, and a tenth of it for the lowest layers, 0.537.
    """
    return _settings(
        model_name,
        facts,
        epochs=_between(5, 30_000 / facts.num_train, 30),
        lr_warmup_epoch=0.5,
        ema_decay=0.99,
        head_share=0.1,
        first_layer_lr=0.5,
        freeze_bn=None,
        patience=5,
        ft_init_ckpt=facts.weights,
    )


def _settings(model_name: str, facts: Facts, **train: Any) -> Config:
    """Returns what both starts share, with further settings of training."""
    progressive = _stages(model_name, facts)
    return Config(
        # There are few steps: with a momentum of 0.99, BatchNorm's statistics would lag. Regularization is weak.
        model=ModelConfig(model_name=model_name, bn_momentum=0.9, survival_prob=0.9),
        progressive=progressive,
        train=TrainConfig(
            batch_size=_batch_size(facts.num_train),
            optimizer="adamw",
            lr_base=0.016,
            lr_sched="cosine",
            weight_decay=0.01,
            gclip=1.0,
            **train,
        ),
        eval=EvalConfig(batch_size=32, isize=_evaluation_size(model_name, progressive)),
        data=_whole_objects(),
    )


def _network_for(num_train: int) -> str:
    if num_train < 20_000:
        return "efficientnetv2-nano"
    return "efficientnetv2-micro" if num_train < 100_000 else "efficientnetv2-b0"


def _between(low: int, value: float, high: int) -> int:
    return max(low, min(round(value), high))


def _batch_size(num_train: int) -> int:
    """Returns the images per step: 32, or fewer where an epoch would have less than 20 steps; 128 for large data."""
    if num_train >= 20_000:
        return 128
    return next((size for size in (32, 16) if num_train >= 20 * size), 8)


def _stages(model_name: str, facts: Facts) -> ProgressiveConfig:
    """Returns two stages up to the training size of the network, or to the size of the images if they are smaller."""
    size = base.progressive_of(model_name).image_size.end
    if facts.shorter_side is not None:
        size = min(size, max(_SMALLEST_SIDE, facts.shorter_side))
    return ProgressiveConfig(
        stages=2, image_size=ramp(0.75 * size, size), randaug_magnitude=ramp(5, 8), dropout_rate=ramp(0.1, 0.3)
    )


def _evaluation_size(model_name: str, progressive: ProgressiveConfig) -> int | None:
    """Returns None for the evaluation size of the network, or the size of the last stage if the images are smaller."""
    largest = progressive.plan(progressive.stages)[-1].image_size
    return largest if largest < base.progressive_of(model_name).image_size.end else None


def _whole_objects() -> DataConfig:
    """Returns crops of at least half of an image, one RandAugment operation, and evaluation on the whole side.

    Crops from a twentieth of the image suit 350 epochs of ImageNet, but show too little of it in a short run.
    """
    return DataConfig(crop_area=(0.5, 1.0), eval_crop=1.0, ra_num_layers=1, cache="auto")
