"""What ``--mode=eval`` can evaluate: a run, an export, or a file of weights."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.export.exporter import rebuilt
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE, load_saved_model
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.modes.settings import EVALUATION_OF_A_RUN, check_read
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import Which, load_trained
from effnetv2_keras.weights.loading import load_configured

Network = Callable[..., tf.Tensor]
"""A Keras model or a callable like it: ``network(images, training=False)`` returns logits ``[N, classes]``."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """The networks to evaluate, with their settings.

    Attributes:
        name: path of the run, export or weights, for messages.
        models: the networks by the suffix of their metrics; ``"_ema"`` is the moving average of the weights.
        config: settings of data, evaluation and precision.
        normalization: how the input pipeline normalizes pixels; None if the networks take pixels in 0..255.
        image_size: side of the images if ``config.eval.sizes`` is empty, pixels.
        class_names: class names in label order; None if they are not known.
        step: number of finished steps of the checkpoint; None if it is not known.
        folder: folder of the run; None if it is not a run.
    """

    name: str
    models: Mapping[str, Network]
    config: Config
    normalization: specs.Normalization | None
    image_size: int
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    folder: RunFolder | None = None


def load_run(
    model_dir: str,
    strategy: tf.distribute.Strategy,
    *,
    which: Which = "best",
    changes: Mapping[str, Any] | None = None,
) -> Subject:
    """Loads the raw weights of a run, and the moving average if the run has one.

    Args:
        model_dir: folder of the run.
        strategy: distribution strategy of the networks.
        which: ``"best"`` or ``"latest"`` checkpoint.
        changes: settings to change for this evaluation by dotted name, in ``data`` and ``eval``, and
            ``precision.policy``:
            ``{"data.eval_split": "test", "eval.isize": 256}``.

    Raises:
        ConfigError: if ``changes`` contains other settings.
        RunFolderError: if the run cannot be used.
    """
    changes = changes or {}
    fixed = [key for key in changes if not key.startswith(("data.", "eval.", "precision."))]
    if fixed:
        raise ConfigError(
            f"An evaluation can only change settings in data, eval and precision, but not {', '.join(fixed)}, because "
            "the trained network depends on them. Leave them out."
        )
    check_read(changes, EVALUATION_OF_A_RUN, "An evaluation of a run")
    with strategy.scope():
        trained = load_trained(model_dir, which=which, use_ema=False)
        config = trained.config.override(changes)
        check_fold(trained.config, config)
        policy = config.precision.policy
        models = {"": rebuilt(trained, "precision.policy", policy).model}
        if config.train.ema_decay:
            averaged = load_trained(model_dir, which=which, use_ema=True)
            models["_ema"] = rebuilt(averaged, "precision.policy", policy).model
    return Subject(
        model_dir,
        models,
        config,
        config.input_normalization,
        config.eval_size,
        trained.class_names,
        trained.step,
        RunFolder(model_dir),
    )


def is_export(path: str | os.PathLike[str]) -> bool:
    """Returns whether a folder contains a SavedModel."""
    return pathlib.Path(path, SAVED_MODEL_FILE).is_file()


def load_export(path: str, strategy: tf.distribute.Strategy, config: Config) -> Subject:
    """Loads a SavedModel that ``--mode=export`` wrote.

    Args:
        path: folder of the SavedModel.
        strategy: distribution strategy of the network.
        config: settings of data and evaluation. The image size is ``eval.isize``, or that of the export if it is None.

    Raises:
        UsageError: if the SavedModel is not such an export.
    """
    with strategy.scope():
        loaded = load_saved_model(path)
    missing = {"serving_default", "class_names"} - set(loaded.signatures)
    if missing or not hasattr(loaded, "image_size"):
        raise UsageError(
            f"The SavedModel {path} was not written by --mode=export of this version; it has the signatures "
            f"{sorted(loaded.signatures)}. Export the run again."
        )

    def network(images: tf.Tensor, *, training: bool) -> tf.Tensor:
        del training  # an export always runs in inference mode
        # Some pipelines make pixels with fractions, which the signature uint8 cannot take.
        return loaded.signatures["serving_default"](images=tf.cast(images, tf.float32))["logits"]

    names = tuple(name.decode() for name in loaded.signatures["class_names"]()["class_names"].numpy())
    return Subject(path, {"": network}, config, None, config.eval.isize or int(loaded.image_size), names)


def load_file(config: Config, strategy: tf.distribute.Strategy, *, num_classes: int) -> Subject:
    """Builds the network of a configuration and loads the weights of its ``train.ft_init_ckpt``.

    Args:
        config: settings of network, data and evaluation.
        strategy: distribution strategy of the network.
        num_classes: number of classes of the data.

    Raises:
        ConfigError: if ``train.ft_init_ckpt`` is None, or its classifier has another number of classes.
        WeightsError: if the weights cannot be found, downloaded or read, or do not fit the network.
    """
    if config.train.ft_init_ckpt is None:
        raise ConfigError(
            "--mode=eval needs --model_dir, the folder of a run or of a SavedModel. To evaluate weights instead, use "
            "--model_name=NAME --hparam_str=train.ft_init_ckpt=PATH."
        )
    with strategy.scope():
        model = build_for(config, num_classes)
        report = load_configured(model, config)
    if report.missing or report.mismatched:
        raise ConfigError(
            f"The data has {num_classes} classes, but {report.source} has no classifier for them. {report.describe()} "
            "Use weights with a classifier for this data, or fine-tune these with --mode=train."
        )
    return Subject(report.source, {"": model}, config, config.input_normalization, config.eval_size)


def check_fold(trained: Config, config: Config) -> None:
    """Raises ``ConfigError`` if the fold to evaluate is not the one that the run did not train on."""
    old, new = ((data.folds, data.fold, data.group_by) for data in (trained.data, config.data))
    if old[0] and new[0] and old != new:
        raise ConfigError(
            f"The run evaluates on fold data.fold={old[1]} of data.folds={old[0]}, data.group_by={old[2]}, and trained "
            f"on the others. data.fold={new[1]},data.folds={new[0]},data.group_by={new[2]} would evaluate on images "
            "that it was trained on. Leave these settings out, or evaluate the run of that fold."
        )
