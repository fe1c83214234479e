"""EfficientNetV2 for TensorFlow/Keras: the networks, and the progressive learning that made them fast to train."""

import importlib
import importlib.util
import pathlib
import types
import typing

from effnetv2_keras.basics.packages import explained

if typing.TYPE_CHECKING:
    import hparams as hparams
    from effnetv2_keras.applications import EfficientNetB0 as EfficientNetB0
    from effnetv2_keras.applications import EfficientNetB1 as EfficientNetB1
    from effnetv2_keras.applications import EfficientNetB2 as EfficientNetB2
    from effnetv2_keras.applications import EfficientNetB3 as EfficientNetB3
    from effnetv2_keras.applications import EfficientNetB4 as EfficientNetB4
    from effnetv2_keras.applications import EfficientNetB5 as EfficientNetB5
    from effnetv2_keras.applications import EfficientNetB6 as EfficientNetB6
    from effnetv2_keras.applications import EfficientNetB7 as EfficientNetB7
    from effnetv2_keras.applications import EfficientNetB8 as EfficientNetB8
    from effnetv2_keras.applications import EfficientNetL2 as EfficientNetL2
    from effnetv2_keras.applications import EfficientNetV2B0 as EfficientNetV2B0
    from effnetv2_keras.applications import EfficientNetV2B1 as EfficientNetV2B1
    from effnetv2_keras.applications import EfficientNetV2B2 as EfficientNetV2B2
    from effnetv2_keras.applications import EfficientNetV2B3 as EfficientNetV2B3
    from effnetv2_keras.applications import EfficientNetV2L as EfficientNetV2L
    from effnetv2_keras.applications import EfficientNetV2M as EfficientNetV2M
    from effnetv2_keras.applications import EfficientNetV2S as EfficientNetV2S
    from effnetv2_keras.applications import EfficientNetV2XL as EfficientNetV2XL
    from effnetv2_keras.applications import preprocess_input as preprocess_input
    from effnetv2_keras.architecture.specs import BlockSpec as BlockSpec
    from effnetv2_keras.architecture.specs import ModelSpec as ModelSpec
    from effnetv2_keras.architecture.variants import MODELS as MODELS
    from effnetv2_keras.config import Config as Config
    from effnetv2_keras.data.fit_input import evaluation_dataset as evaluation_dataset
    from effnetv2_keras.data.fit_input import progressive_dataset as progressive_dataset
    from effnetv2_keras.data.sources.base import ArraySource as ArraySource
    from effnetv2_keras.data.sources.datasets import DatasetSource as DatasetSource
    from effnetv2_keras.data.splits import Splits as Splits
    from effnetv2_keras.models.class_names import decode_predictions as decode_predictions
    from effnetv2_keras.models.factory import build_model as build_model
    from effnetv2_keras.models.finetuning import set_trainable as set_trainable
    from effnetv2_keras.progressive import Ramp as Ramp
    from effnetv2_keras.progressive import Ramps as Ramps
    from effnetv2_keras.progressive import Stage as Stage
    from effnetv2_keras.progressive import plan_stages as plan_stages
    from effnetv2_keras.progressive import remaining as remaining
    from effnetv2_keras.runs.trained import load_trained as load_trained
    from effnetv2_keras.training.follow_stages import FollowStages as FollowStages
    from effnetv2_keras.training.loop import train as train
    from effnetv2_keras.weights import WeightReport as WeightReport
    from effnetv2_keras.weights import load_weights as load_weights
    from effnetv2_keras.weights import to_keras_layers as to_keras_layers

__version__ = "0.1.0"

# Loaded when first used: the stage plan and the specs need no TensorFlow.
_NAMES = {
    "config": ("Config",),
    "data.fit_input": ("evaluation_dataset", "progressive_dataset"),
    "data.sources.base": ("ArraySource",),
    "data.sources.datasets": ("DatasetSource",),
    "data.splits": ("Splits",),
    "applications": (
        "EfficientNetB0",
        "EfficientNetB1",
        "EfficientNetB2",
        "EfficientNetB3",
        "EfficientNetB4",
        "EfficientNetB5",
        "EfficientNetB6",
        "EfficientNetB7",
        "EfficientNetB8",
        "EfficientNetL2",
        "EfficientNetV2B0",
        "EfficientNetV2B1",
        "EfficientNetV2B2",
        "EfficientNetV2B3",
        "EfficientNetV2L",
        "EfficientNetV2M",
        "EfficientNetV2S",
        "EfficientNetV2XL",
        "preprocess_input",
    ),
    "models.class_names": ("decode_predictions",),
    "models.factory": ("build_model",),
    "models.finetuning": ("set_trainable",),
    "progressive": ("Ramp", "Ramps", "Stage", "plan_stages", "remaining"),
    "architecture.specs": ("BlockSpec", "ModelSpec"),
    "runs.trained": ("load_trained",),
    "training.follow_stages": ("FollowStages",),
    "training.loop": ("train",),
    "architecture.variants": ("MODELS",),
    "weights": ("WeightReport", "load_weights", "to_keras_layers"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> typing.Any:
    if name == "hparams":
        return _recipes()
    if name in _HOME:
        with explained(f"{__name__}.{name}"):
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _recipes() -> types.ModuleType:
    """Returns the package of recipes: inside this package in an installation, and beside it in a checkout."""
    here = pathlib.Path(__file__).resolve().parent
    for name in (f"{__name__}.hparams", "hparams"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and pathlib.Path(spec.origin).resolve().parents[1] in (here, here.parent):
            return importlib.import_module(name)
    raise ImportError(f"The recipes are missing: there is no folder hparams in {here} or in {here.parent}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, "hparams"])
