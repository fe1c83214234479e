"""The reference code's own settings, where they differ from the paper's: what ``--hparam_str=recipe=original`` changes.

Source: google/automl, ``efficientnetv2/effnetv2_configs.py``, ``hparams.py``, ``datasets.py`` and ``main.py``. Each
function takes a recipe's configuration and gives it back with the reference code's cells; a recipe names its function
as ``ORIGINAL``. What was plainly a mistake there is not repeated:

- splits to tune on do not overlap with training (``imagenettfds``, ``tfflowers``);
- flowers are counted as 2,040 training images, not 1,020;
- CutMix gives each image the labels of its own area, not of the mean over the batch;
- mixing works for every source, not for TFRecord shards alone;
- evaluation uses every image, and counts none twice.

The arithmetic of the augmentations is the reference code's to the last bit, its oddities included
(``effnetv2_keras/data/augment/reference.py``); ``data.augment_arithmetic=clean`` leaves them out.
"""

from __future__ import annotations

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config, DataConfig, ModelConfig, ProgressiveConfig, ramp

# Columns: largest RandAugment magnitude; largest alpha of mixup and of CutMix. The other variants have AutoAugment.
_RANDAUG = {
    "efficientnetv2-s": (10, 0.0),
    "efficientnetv2-m": (15, 0.2),
    "efficientnetv2-l": (20, 0.5),
    "efficientnetv2-xl": (20, 0.5),
}


def pretrained(config: Config) -> Config:
    """Training from scratch: sizes from ``128 + (size - 128) / 4`` on, mixup and CutMix alike, dropout that stays.

    Trains on 98 % of the training images, those outside minival. V2 trains in four stages, V1 in one. S, M, L and XL
    have RandAugment and the pipeline of V2, B0 to B3 and V1 have AutoAugment and that of V1.
    """
    spec = config.spec
    magnitude, alpha = _RANDAUG.get(spec.name, (0, 0.0))
    of_v1 = spec.name not in _RANDAUG
    progressive = ProgressiveConfig(
        stages=4 if spec.name.startswith("efficientnetv2") else 1,
        schedule="original",
        image_size=ramp(128, spec.train_size),
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
    """ImageNet-21k: no augmentation, and the pipeline and normalisation of V2 for every variant."""
    return _changed(config, normalization="centered", augment="none", pipeline="original_v2")


def finetuned(config: Config) -> Config:
    """Fine-tuning: 15 epochs but at least 10,000 steps at a constant learning rate, with weight decay.

    Whole images are squeezed into squares, pixels go from -1 to 1 for every variant, and the square is noise.
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
    model = {**config.model.model_dump(), "bn_momentum": 0.9, "normalization": normalization}
    return config.model_copy(
        update={
            "model": ModelConfig(**model),
            "progressive": progressive or config.progressive,
            "data": DataConfig(**{**config.data.model_dump(), "augment_arithmetic": "original", **data}),
        }
    )
