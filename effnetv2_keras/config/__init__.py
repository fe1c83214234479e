"""Configurations: sections of settings, overrides, and setting names from the reference code (no TensorFlow)."""

from effnetv2_keras.config.schema import (
    CONFIG_FILE,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    PrecisionConfig,
    ProgressiveConfig,
    RampConfig,
    RuntimeConfig,
    SearchConfig,
    TrainConfig,
    ramp,
)

__all__ = [
    "CONFIG_FILE",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "PrecisionConfig",
    "ProgressiveConfig",
    "RampConfig",
    "RuntimeConfig",
    "SearchConfig",
    "TrainConfig",
    "ramp",
]
