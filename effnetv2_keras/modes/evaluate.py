"""``--mode=eval``: evaluates a run, an export or a weights file at one or more image sizes."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import rich.console
import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_all_overrides
from effnetv2_keras.data.pipeline import InputPlan, eval_input
from effnetv2_keras.data.sources.base import Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.export.exporter import rebuilt
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE, load_saved_model
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.per_class import report_classes
from effnetv2_keras.modes.settings import (
    EVALUATION_OF_A_RUN,
    EVALUATION_OF_AN_EXPORT,
    EVALUATION_OF_WEIGHTS,
    check_read,
)
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.primary_metric import primary_metric_key
from effnetv2_keras.reporting.tables import describe_evaluation
from effnetv2_keras.runs.trained import Which, load_trained
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.input import eval_batch_size
from effnetv2_keras.training.verified import verified_evaluation
from effnetv2_keras.weights import load_weights

SIZES_PLOT = "eval_sizes.png"

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
    """

    name: str
    models: Mapping[str, Network]
    config: Config
    normalization: specs.Normalization | None
    image_size: int
    class_names: tuple[str, ...] | None = None
    step: int | None = None


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
        policy = config.precision.policy
        models = {"": rebuilt(trained, "precision.policy", policy).model}
        if config.train.ema_decay:
            averaged = load_trained(model_dir, which=which, use_ema=True)
            models["_ema"] = rebuilt(averaged, "precision.policy", policy).model
    return Subject(
        model_dir, models, config, config.input_normalization, config.eval_size, trained.class_names, trained.step
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
    path = config.train.ft_init_ckpt
    if path is None:
        raise ConfigError(
            "--mode=eval needs --model_dir, the folder of a run or of a SavedModel. To evaluate weights instead, use "
            "--model_name=NAME --hparam_str=train.ft_init_ckpt=PATH."
        )
    with strategy.scope():
        model = build_for(config, num_classes)
        report = load_weights(model, path, prefer_ema=config.train.ft_init_ema)
    if report.missing or report.mismatched:
        raise ConfigError(
            f"The data has {num_classes} classes, but {report.source} has no classifier for them. {report.describe()} "
            "Use weights with a classifier for this data, or fine-tune these with --mode=train."
        )
    return Subject(report.source, {"": model}, config, config.input_normalization, config.eval_size)


def evaluate(
    subject: Subject,
    strategy: tf.distribute.Strategy,
    *,
    splits: Splits | None = None,
    folder: str | os.PathLike[str] = ".",
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Evaluates networks and prints the metrics, finally as one line of JSON.

    With several sizes in ``eval.sizes``, it also writes the plot ``eval_sizes.png``. With ``eval.per_class``, it writes
    ``per_class.csv`` and, unless multi-label, ``confusion.png``, for the best size and for the moving average of the
    weights if there is one. The best size has the highest top-1, or for multi-label images the highest mAP.

    Args:
        subject: result of ``load_run``, ``load_export`` or ``load_file``.
        strategy: the distribution strategy that the networks were loaded with.
        splits: training and evaluation data; None opens the data of the configuration.
        folder: folder for plots and tables, created if missing.
        console: output; None is standard output.

    Returns:
        The metrics of ``Evaluator.run`` at the best size, with ``step``, ``image_size`` and ``num_examples``. With
        several sizes, ``sizes`` is a list of such metrics for all sizes.

    Raises:
        ConfigError, DataError, UsageError: if the settings or data cannot be used, or the data has other classes than
            the network.
    """
    console = console or rich.console.Console()
    source = (splits or open_splits(subject.config.data)).evaluation
    if subject.class_names not in (None, source.class_names):
        raise UsageError(
            f"{subject.name} was trained on the classes {subject.class_names}, but the data has {source.class_names}. "
            "Use data with the same classes in the same order."
        )
    source = verified_evaluation(subject.config, strategy, source, console)
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    for size in subject.config.eval.sizes or (subject.image_size,):
        figures = _evaluate_at(size, subject, strategy, source, console)
        tables = {name: value for name, value in figures.items() if isinstance(value, np.ndarray)}
        row = {"step": subject.step, "image_size": size, "num_examples": source.num_examples, **figures}
        row = {name: value for name, value in row.items() if value is not None and name not in tables}
        where = f"{size} px: " if len(subject.config.eval.sizes) > 1 else ""
        show(console, where + describe_evaluation(row, source.num_examples))
        rows.append(row)
        if not best or row[primary_metric_key(row)] > best["row"][primary_metric_key(row)]:
            best = {"row": row, "tables": tables}
    result = {**best["row"], **({"sizes": rows} if len(rows) > 1 else {})}
    try:
        if len(rows) > 1:
            path = pathlib.Path(folder, SIZES_PLOT)
            if plots.try_to_draw(plots.plot_sizes, rows, path):
                show(console, f"Wrote {path}.")
        if best["tables"]:
            report_classes(best["tables"], source.class_names, pathlib.Path(folder), console)
    finally:  # a file that cannot be written must not cost the metrics
        show(console, json.dumps(result))
    return result


def _evaluate_at(
    size: int, subject: Subject, strategy: tf.distribute.Strategy, source: Source, console: rich.console.Console
) -> dict[str, Any]:
    config = subject.config
    unreadable = UnreadableImages(config.data.unreadable, config.data.max_unreadable)
    batch_size = eval_batch_size(config, strategy)
    plan = InputPlan(config.data, batch_size, subject.normalization, unreadable)
    evaluator = Evaluator(
        subject.models,
        strategy,
        input_fn=eval_input(source, plan, image_size=size),
        num_examples=source.num_examples,
        batch_size=batch_size,
        loss_type=config.train.loss_type,
        per_class=config.eval.per_class,
        max_unreadable=config.data.max_unreadable,
    )
    with unreadable.explained(source), console.status("evaluating") as status, doing("evaluating") as activity:

        def on_step(done: int, steps: int) -> None:
            activity.text = f"evaluating at {size} px: {done}/{steps}"
            status.update(activity.text)

        return evaluator.run(on_step)


def run(invocation: Invocation) -> None:
    """Evaluates the run or SavedModel in ``--model_dir``, or without it the weights of ``train.ft_init_ckpt``."""
    options, strategy, splits = invocation.options, invocation.strategy(), None
    model_dir = options.model_dir
    if model_dir is None:
        config = invocation.config(EVALUATION_OF_WEIGHTS)
        splits = open_splits(config.data)
        subject = load_file(config, strategy, num_classes=len(splits.evaluation.class_names))
    elif is_export(model_dir):
        subject = load_export(model_dir, strategy, invocation.config(EVALUATION_OF_AN_EXPORT))
    else:
        changes = {**parse_all_overrides(options.hparam_str), **invocation.data_changes()}
        subject = load_run(model_dir, strategy, which=options.weights, changes=changes)
    folder = options.output_dir or (model_dir if subject.step is not None else ".")
    evaluate(subject, strategy, splits=splits, folder=folder or ".", console=invocation.console)
