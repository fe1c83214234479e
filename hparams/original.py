"""Settings of the reference code that differ from the paper's; ``--hparam_str=recipe=original`` selects them.

Source: google/automl, ``efficientnetv2/effnetv2_configs.py``, ``hparams.py``, ``datasets.py`` and ``main.py``. Each
function returns the configuration of a recipe with the settings of the reference code. A recipe assigns its function to
``ORIGINAL``. Obvious mistakes of the reference code are corrected:

- splits for tuning do not overlap with the training images (``imagenettfds``, ``tfflowers``);
- the number of training images of Flowers is 2,040, not 1,020;
- CutMix weights the labels of each image by its own area, not by the mean area over the batch;
- mixing works with every source, not only with TFRecord shards;
- evaluation uses every image exactly once.

The arithmetic of the augmentations is bit-identical to that of the reference code, including its peculiarities (see
``effnetv2_keras/data/augment/reference.py``); ``data.augment_arithmetic=clean`` avoids these.
"""

from __future__ import annotations

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config, DataConfig, ModelConfig, ProgressiveConfig, ramp

# Columns: largest RandAugment magnitude; largest alpha of mixup and of CutMix. The other variants use AutoAugment.
_RANDAUG = {
    "efficientnetv2-s": (10, 0.0),
    "efficientnetv2-m": (15, 0.2),
    "efficientnetv2-l": (20, 0.5),
    "efficientnetv2-xl": (20, 0.5),
}


def pretrained(config: Config) -> Config:
    """Returns the settings of the reference code for training from scratch.

    V2 trains in four stages, V1 in one. The image sizes of V2 start at ``128 + (size - 128) / 4``, mixup and CutMix
    have the same alpha, and the dropout rate is constant. The training images are the 98 % outside minival. S, M, L
    and XL use RandAugment and the pipeline of V2; B0 to B3 and V1 use AutoAugment and the pipeline of V1.

    Args:
        config: configuration of the recipe.
    """
    spec = config.spec
    magnitude, alpha = _RANDAUG.get(spec.name, (0, 0.0))
    of_v1 = spec.name not in _RANDAUG
    progressive = ProgressiveConfig(
        stages=4 if spec.name.startswith("efficientnetv2") else 1,
        schedule="original",
        image_size=ramp(min(128, spec.train_size), spec.train_size),
        randaug_magnitude=ramp(5 if magnitude else 0, magnitude),
        mixup_alpha=ramp(0, alpha),
        cutmix_alpha=ramp(0, alpha),
        dropout_rate=ramp(spec.dropout_rate, spec.dropout_rate),
    )
    return _changed(
        config,
        progressive=progressive,
        train_split="train[2%:]",
        augment="autoaug" if of_v1 else "randaug",
        pipeline="original_v1" if of_v1 else "original_v2",
    )


def unaugmented(config: Config) -> Config:
    """Returns the settings for ImageNet-21k: no augmentation; V2's pipeline and normalization for every variant."""
    return _changed(config, normalization="centered", augment="none", pipeline="original_v2")


def finetuned(config: Config) -> Config:
    """Returns the settings for fine-tuning: 15 epochs, at least 10,000 steps, constant learning rate, weight decay.

    Whole images are resized to squares without keeping the aspect ratio. For every variant, pixels are scaled to
    -1..1. Cutout fills its square with noise.

    Args:
        config: configuration of the recipe.
    """
    train = {"epochs": 15, "min_steps": 10_000, "lr_sched": "constant", "weight_decay": 1e-5}
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    return _changed(
        config,
        normalization="symmetric",
        augment="none",
        pipeline="original_finetune",
        cutout=True,
        crop_area=None,
        eval_crop=None,
    )


def _changed(
    config: Config,
    *,
    progressive: ProgressiveConfig | None = None,
    normalization: specs.Normalization | None = None,
    **data: object,
) -> Config:
    model = {**config.model.model_dump(), "bn_momentum": 0.9, "classifier_init": "reference"}
    model["normalization"] = normalization
    return config.model_copy(
        update={
            "model": ModelConfig(**model),
            "progressive": progressive or config.progressive,
            "data": DataConfig(**{**config.data.model_dump(), "augment_arithmetic": "original", **data}),
        }
    )
