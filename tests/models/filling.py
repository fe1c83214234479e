"""Fills a network with weights that all affect the output, so that a misplaced weight changes it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from effnetv2_keras.models.keras_compat import path_of

SALTS = {"kernel": 1, "depthwise_kernel": 1, "gamma": 2, "beta": 3, "bias": 4, "moving_mean": 5, "moving_variance": 6}


def uniform_hash(count: int, salt: int) -> np.ndarray:
    """Returns the numbers in [0, 1) of the golden values of the reference code: a 32-bit mixing hash of 1..count."""
    x = np.arange(1, count + 1, dtype=np.uint64) * 2654435761 + salt * 40503 & 0xFFFFFFFF
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        x = (x ^ (x >> shift)) * factor & 0xFFFFFFFF
    return (x ^ (x >> 16)).astype(np.float64) / 2**32


def fill_by_hash(model: tf.keras.Model) -> None:
    """Fills every variable with the values of the golden tests, which depend on its kind."""
    for variable in model.variables:
        kind, shape = kind_of(variable), tuple(variable.shape)
        variable.assign(_values(kind, shape, uniform_hash(int(np.prod(shape)), SALTS[kind]).reshape(shape)))


def fill_at_random(model: tf.keras.Model, seed: int = 0) -> None:
    """Fills every variable, including BatchNorm statistics, with different random values."""
    numbers = np.random.default_rng(seed)
    for variable in model.variables:
        shape = tuple(variable.shape)
        variable.assign(_values(kind_of(variable), shape, numbers.uniform(size=shape)))


def kind_of(variable: tf.Variable) -> str:
    return path_of(variable).split("/")[-1]


def _values(kind: str, shape: tuple[int, ...], uniform: np.ndarray) -> np.ndarray:
    if kind in ("kernel", "depthwise_kernel"):
        fan_in = np.prod(shape[:2] if kind == "depthwise_kernel" else shape[:-1])
        return (uniform - 0.5) * 2 * np.sqrt(3 / fan_in)
    if kind in ("gamma", "moving_variance"):
        return 0.75 + 0.5 * uniform
    return (0.4 if kind == "beta" else 0.2) * (uniform - 0.5)
