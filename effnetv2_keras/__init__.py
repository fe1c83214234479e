"""EfficientNetV2 for TensorFlow/Keras: the networks, and the progressive learning that made them fast to train."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from effnetv2_keras.config import Config as Config
    from effnetv2_keras.data.sources import ArraySource as ArraySource
    from effnetv2_keras.data.splits import Splits as Splits
    from effnetv2_keras.models.factory import build_model as build_model
    from effnetv2_keras.progressive import Ramp as Ramp
    from effnetv2_keras.progressive import Ramps as Ramps
    from effnetv2_keras.progressive import Stage as Stage
    from effnetv2_keras.progressive import plan_stages as plan_stages
    from effnetv2_keras.progressive import remaining as remaining
    from effnetv2_keras.specs import MODELS as MODELS
    from effnetv2_keras.specs import BlockSpec as BlockSpec
    from effnetv2_keras.specs import ModelSpec as ModelSpec
    from effnetv2_keras.training.checkpoints import load_trained as load_trained
    from effnetv2_keras.training.loop import train as train
    from effnetv2_keras.weights import WeightReport as WeightReport
    from effnetv2_keras.weights import load_weights as load_weights

__version__ = "0.1.0"

# Loaded when first used: the stage plan and the specs need no TensorFlow.
_HOME = {
    "ArraySource": "data.sources",
    "BlockSpec": "specs",
    "Config": "config",
    "MODELS": "specs",
    "ModelSpec": "specs",
    "Ramp": "progressive",
    "Ramps": "progressive",
    "Splits": "data.splits",
    "WeightReport": "weights",
    "Stage": "progressive",
    "build_model": "models.factory",
    "load_trained": "training.checkpoints",
    "load_weights": "weights",
    "plan_stages": "progressive",
    "remaining": "progressive",
    "train": "training.loop",
}


def __getattr__(name: str) -> typing.Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
