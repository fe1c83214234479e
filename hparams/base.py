"""What the recipes share: the stage settings of every variant.

S, M and L: Table 6 of the paper (arXiv 2104.00298). The paper gives no XL (here: as L) and no other variant (here, V1
included: up to the train size of the reference code, RandAugment 5 to 10, dropout up to the reference code's value).
The train size of V1 is 20 % below the evaluation size, as ``sized`` rounds it (reference code).
None of these rows has been trained to the end on ImageNet here: not measured.
"""

from __future__ import annotations

from effnetv2_keras.architecture import variants
from effnetv2_keras.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    ProgressiveConfig,
    TrainConfig,
    ramp,
)
from effnetv2_keras.weights.published import PUBLISHED

# Columns: largest image, px; largest RandAugment magnitude; largest mixup alpha; largest dropout.
_TABLE_6 = {
    "efficientnetv2-s": (300, 15, 0.0, 0.3),
    "efficientnetv2-m": (380, 20, 0.2, 0.4),
    "efficientnetv2-l": (380, 25, 0.4, 0.5),
    "efficientnetv2-xl": (380, 25, 0.4, 0.5),
}


def progressive_of(model_name: str) -> ProgressiveConfig:
    """The four stages of a variant: images from 128 px, RandAugment from 5, mixup from 0, dropout from 0.1."""
    spec = variants.any_spec(model_name)
    size, magnitude, alpha, dropout = _TABLE_6.get(spec.name, (spec.train_size, 10, 0.0, spec.dropout_rate))
    return ProgressiveConfig(
        stages=4,
        image_size=ramp(128, size),
        randaug_magnitude=ramp(5, magnitude),
        mixup_alpha=ramp(0, alpha),
        dropout_rate=ramp(0.1, dropout),
    )


def get_base(model_name: str) -> Config:
    """The paper's training settings (section 5.1) for a variant, without a data set."""
    progressive = progressive_of(model_name)  # first, so that an unknown name is told in its own words
    return Config(model=ModelConfig(model_name=model_name), progressive=progressive)


def sized(eval_size: int, ratio: float) -> int:
    """Side of training images from that of evaluation, pixels: their ratio, then down to a multiple of 16.

    Source: the reference code's ``train.isize``, where it is a ratio.
    """
    return int(eval_size * ratio) // 16 * 16


def constant(size: int) -> ProgressiveConfig:
    """One stage of images of ``size`` px, with neither RandAugment nor mixing nor dropout."""
    return ProgressiveConfig(
        stages=1, image_size=ramp(size, size), randaug_magnitude=ramp(0, 0), dropout_rate=ramp(0, 0)
    )


def finetune(model_name: str, data: DataConfig, *weights: str) -> Config:
    """Fine-tuning as in section 5.3 of the paper.

    10,000 steps of 512 images, a cosine schedule from a learning rate of 0.001 on, no weight decay, and cutout. What
    the paper leaves open is as in the reference code, ``datasets.py``, ``ImagenetFt``: one epoch of warm-up, a moving
    average of 0.9996, images of the evaluation size, all of each, flipped at random, and neither dropout nor
    RandAugment nor mixing.

    Args:
        model_name: a key of ``effnetv2_keras.architecture.variants.MODELS``.
        data: what to fine-tune on.
        weights: names of published weights to start from, the best first; the first that the variant has is taken.
            Without any the run starts from random weights, and ``train.ft_init_ckpt`` must name a file.
    """
    spec = variants.any_spec(model_name)
    return Config(
        model=ModelConfig(model_name=model_name, survival_prob=0.8),
        progressive=constant(sized(spec.eval_size, 1.0)),
        train=TrainConfig(
            epochs=1,  # less than min_steps for every data set that this is for
            min_steps=10_000,
            batch_size=512,
            lr_base=0.0005,
            lr_sched="cosine",
            lr_warmup_epoch=1,
            weight_decay=0.0,
            ema_decay=0.9996,
            ft_init_ckpt=next((name for name in weights if (spec.name, name) in PUBLISHED), None),
        ),
        eval=EvalConfig(batch_size=8),
        data=data.model_copy(update={"crop_area": (1.0, 1.0), "eval_crop": 1.0, "cutout": True}),
    )


IMAGENET_WEIGHTS = ("imagenet", "imagenet21k-ft1k", "noisy-student")
"""Published weights that know the 1000 classes of ImageNet."""
