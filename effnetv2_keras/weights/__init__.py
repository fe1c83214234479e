"""Loads published weights and weights from other code: one reader per format, one assignment step, one report."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from effnetv2_keras.weights.conversion import to_keras_layers
    from effnetv2_keras.weights.loading import load_weights
    from effnetv2_keras.weights.report import Mismatch, WeightReport, WeightsError

__all__ = ["Mismatch", "WeightReport", "WeightsError", "load_weights", "to_keras_layers"]

_HOME = {"load_weights": "loading", "to_keras_layers": "conversion"}


def __getattr__(name: str) -> typing.Any:  # lazy imports, because recipes import ``published`` without TensorFlow
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'report')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
