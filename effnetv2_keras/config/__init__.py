"""Configurations: sections of settings, overrides, and setting names from the reference code (no TensorFlow)."""

from effnetv2_keras.config.data_settings import DataConfig
from effnetv2_keras.config.eval_settings import EvalConfig
from effnetv2_keras.config.facts import USUAL, Facts
from effnetv2_keras.config.schema import CONFIG_FILE, Config
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.config.sections import (
    ModelConfig,
    PrecisionConfig,
    ProgressiveConfig,
    RampConfig,
    RuntimeConfig,
    ramp,
)
from effnetv2_keras.config.train_settings import TrainConfig

__all__ = [
    "CONFIG_FILE",
    "USUAL",
    "Config",
    "DataConfig",
    "EvalConfig",
    "Facts",
    "ModelConfig",
    "PrecisionConfig",
    "ProgressiveConfig",
    "RampConfig",
    "RuntimeConfig",
    "SearchConfig",
    "TrainConfig",
    "ramp",
]
