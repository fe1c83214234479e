"""What the tests of every export format share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.runs.trained import Trained
from tests.made_runs import CLASS_NAMES, random_pixels


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def rebuilt(trained: Trained, **changes: object) -> Trained:
    """The same weights under other settings, whose dot is written ``__``."""
    config = trained.config.override({name.replace("__", "."): value for name, value in changes.items()})
    model = build_for(config, len(CLASS_NAMES))
    model.set_weights(trained.model.get_weights())
    return dataclasses.replace(trained, config=config, model=model)


def ending_in(trained: Trained, change: Callable[[tf.Tensor], tf.Tensor]) -> Trained:
    """The network followed by ``change``."""
    return dataclasses.replace(trained, model=tf.keras.Sequential([trained.model, tf.keras.layers.Lambda(change)]))


def block_images(count: int) -> np.ndarray:
    """Images of the evaluation's size whose logits differ, uint8."""
    return np.stack([random_pixels(40, 40, seed=seed) for seed in range(count)])


def block_splits(train: int, evaluation: int) -> Splits:
    """As many images of random blocks, no two alike, all classes in turn."""
    images = np.stack([random_pixels(60, 50, seed=seed) for seed in range(train + evaluation)])
    labels = np.arange(len(images)) % len(CLASS_NAMES)
    return Splits(
        ArraySource(images[:train], labels[:train], CLASS_NAMES),
        ArraySource(images[train:], labels[train:], CLASS_NAMES),
    )
