"""Writes the folder of a finished run without training: the best and the latest checkpoint have random weights."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.state import TrainState, create_state
from tests.tiny import TINY

CLASS_NAMES = ("ape", "bee", "cat", "dog", "été", "fox")
EVAL_SIZE, EVAL_CROP = 40, 0.7


def run_config() -> Config:
    """Returns the configuration of ``make_run``."""
    return (
        Config()
        .override({"eval.isize": EVAL_SIZE, "data.eval_crop": EVAL_CROP, "model.classifier_init": "reference"})
        .with_network(TINY)
    )


def make_run(folder: pathlib.Path) -> pathlib.Path:
    """Writes a finished run of ``TINY`` with ``EVAL_SIZE`` and ``EVAL_CROP``, and returns its folder."""
    config = run_config()
    count = len(CLASS_NAMES)
    source = ArraySource(np.zeros((count, 8, 8, 3), np.uint8), np.arange(count), CLASS_NAMES)
    run = RunFolder(folder)
    run.claim(config, Splits(source, source))
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    state = create_state(config, strategy, num_classes=count, steps_per_epoch=1.0, total_steps=10)
    checkpoints = Checkpoints(state, run, keep=1)
    _randomize(state, seed=0)
    checkpoints.save_if_best(0.5, "top1")
    state.step.assign(10)
    _randomize(state, seed=1)
    checkpoints.save()
    return folder


def _randomize(state: TrainState, *, seed: int) -> None:
    random = np.random.default_rng(seed)
    for model in state.models.values():
        move_weights(model, random)


def move_weights(model: tf.keras.Model, random: np.random.Generator) -> None:
    """Changes every weight and BatchNorm statistic at random, so that each affects the output."""
    model.set_weights([
        weight * random.uniform(0.7, 1.3, weight.shape) + random.normal(0, 0.05, weight.shape)
        for weight in model.get_weights()
    ])  # fmt: skip


def random_pixels(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """Returns an image of coarse blocks, uint8 ``[height, width, channels]``, that JPEG and resizing barely change."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), channels), np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width]
