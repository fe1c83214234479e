"""Settings that the recipes share: the training stages of every variant, and fine-tuning.

- S, M and L have the stages of Table 6 of the paper (arXiv 2104.00298).
- XL is not in that table; it has the stages of L.
- The other variants, including V1, are not in the paper. Their images grow to the training size of the reference code,
  RandAugment grows from 5 to 10, and dropout grows to the value of the reference code.

The training size of V1 is 0.8 of the evaluation size, rounded by ``sized`` (reference code).
Result on ImageNet: not measured, for any variant.
"""

from __future__ import annotations

from effnetv2_keras.architecture import variants
from effnetv2_keras.basics.exact import exact
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
    """Returns the four stages of a variant: images from 128 px, RandAugment from 5, mixup from 0, dropout from 0.1.

    A network of your own whose training size or dropout rate is smaller keeps it in every stage.
    """
    spec = variants.any_spec(model_name)
    size, magnitude, alpha, dropout = _TABLE_6.get(spec.name, (spec.train_size, 10, 0.0, spec.dropout_rate))
    return ProgressiveConfig(
        stages=4,
        image_size=ramp(min(128, size), size),
        randaug_magnitude=ramp(5, magnitude),
        mixup_alpha=ramp(0, alpha),
        dropout_rate=ramp(min(0.1, dropout), dropout),
    )


def get_base(model_name: str) -> Config:
    """Returns the training settings of the paper (section 5.1) for a variant, without a data set."""
    progressive = progressive_of(model_name)  # first, because its error message for an unknown name is clearer
    return Config(model=ModelConfig(model_name=model_name), progressive=progressive)


def sized(eval_size: int, ratio: float) -> int:
    """Returns the side of training images, pixels: ``ratio`` of the evaluation size, rounded down to a multiple of 16.

    Source: ``train.isize`` of the reference code, if it is a ratio.

    Args:
        eval_size: side of the evaluation images, pixels.
        ratio: training size divided by evaluation size, before rounding.
    """
    return int(eval_size * exact(ratio)) // 16 * 16


def constant(size: int) -> ProgressiveConfig:
    """Returns a plan of one stage with images of ``size`` px and without RandAugment, mixing and dropout."""
    return ProgressiveConfig(
        stages=1, image_size=ramp(size, size), randaug_magnitude=ramp(0, 0), dropout_rate=ramp(0, 0)
    )


def finetune(model_name: str, data: DataConfig, *weights: str) -> Config:
    """Returns settings for fine-tuning as in section 5.3 of the paper.

    From the paper: 10,000 steps of 512 images, a cosine schedule that starts at a learning rate of 0.001, no weight
    decay, and cutout. The paper does not give the other settings. They are from the reference code, ``datasets.py``,
    ``ImagenetFt``: one epoch of warm-up, a decay of 0.9996 for the moving average, whole images of the evaluation size,
    random flips, and no dropout, RandAugment or mixing.

    Args:
        model_name: a key of ``effnetv2_keras.architecture.variants.MODELS``.
        data: data set for fine-tuning.
        weights: names of published weights to start from, the best first. The run uses the first that is published for
            the variant. If none is, the run starts from random weights unless ``train.ft_init_ckpt`` names a file.
    """
    spec = variants.any_spec(model_name)
    return Config(
        model=ModelConfig(model_name=model_name, survival_prob=0.8),
        progressive=constant(sized(spec.eval_size, 1.0)),
        train=TrainConfig(
            epochs=1,  # fewer steps than min_steps for every data set with this recipe
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
"""Published weights for the 1000 classes of ImageNet."""
