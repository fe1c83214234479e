"""What the recipes share: the stage settings of every variant.

S, M and L: Table 6 of the paper (arXiv 2104.00298). The paper gives no XL (here: as L) and no other variant (here, V1
included: up to the train size of the reference code, RandAugment 5 to 10, dropout up to the reference code's value).
None of these rows has been trained to the end on ImageNet here: not measured.
"""

from __future__ import annotations

from effnetv2_keras import specs
from effnetv2_keras.config import Config, ModelConfig, ProgressiveConfig, ramp

# Columns: largest image, px; largest RandAugment magnitude; largest mixup alpha; largest dropout.
_TABLE_6 = {
    "efficientnetv2-s": (300, 15, 0.0, 0.3),
    "efficientnetv2-m": (380, 20, 0.2, 0.4),
    "efficientnetv2-l": (380, 25, 0.4, 0.5),
    "efficientnetv2-xl": (380, 25, 0.4, 0.5),
}


def progressive_of(model_name: str) -> ProgressiveConfig:
    """The four stages of a variant: images from 128 px, RandAugment from 5, mixup from 0, dropout from 0.1."""
    spec = specs.get_spec(model_name)
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
    name = specs.get_spec(model_name).name
    return Config(model=ModelConfig(model_name=name), progressive=progressive_of(name))
