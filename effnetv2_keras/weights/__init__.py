"""Weights from elsewhere: one reader per format, one way into a model, one report."""

from effnetv2_keras.weights.loading import load_weights
from effnetv2_keras.weights.report import Mismatch, WeightReport, WeightsError

__all__ = ["Mismatch", "WeightReport", "WeightsError", "load_weights"]
