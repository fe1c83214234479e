"""``--mode=preview``: draws the training images of each stage on one sheet."""

from __future__ import annotations

import os

import numpy as np

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.reporting import plots


def write_preview(config: Config, path: str | os.PathLike[str], *, columns: int = 8) -> None:
    """Draws a PNG with the first training images of each stage, augmented and mixed as in training.

    Args:
        config: configuration of the run.
        path: path of the PNG.
        columns: number of images per stage.

    Raises:
        ConfigError, DataError: if the settings or data cannot be used.
        UsageError: if the PNG cannot be written.
    """
    source = open_splits(config.data).train
    plan = InputPlan(config.data, columns, None, UnreadableImages(config.data.unreadable))
    rows, titles = [], []
    for stage in config.plan(config.total_steps(source.num_examples)):
        input_fn = train_input(source, plan, stage=stage, seed=config.train.seed, first_step=stage.first_step)
        with plan.unreadable.explained(source, config.data.service):
            rows.append(np.asarray(next(iter(single_replica(input_fn)))["image"]))
        titles.append(plots.stage_title(stage, config.data.augment))
    try:
        plots.plot_image_sheet(rows, titles, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be written: {reason}. Choose another --preview_file.") from error


def run(invocation: Invocation) -> None:
    """Writes the sheet of images to ``--preview_file``."""
    with doing("drawing training images of every stage"):
        write_preview(invocation.config(), invocation.options.preview_file)
    invocation.say(f"Wrote {invocation.options.preview_file}.")
