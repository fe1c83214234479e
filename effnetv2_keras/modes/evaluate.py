"""``--mode=eval``: evaluates a run, an export or a file of weights, at one image size or several."""

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
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.data.pipeline import InputPlan, eval_input
from effnetv2_keras.data.sources.base import Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.per_class import report_classes
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.primary_metric import primary_metric_key
from effnetv2_keras.reporting.tables import describe_evaluation
from effnetv2_keras.runs.trained import Which, load_trained
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.weights import load_weights

SIZES_PLOT = "eval_sizes.png"

_CHANGEABLE = ("data.", "eval.", "precision.")

Network = Callable[..., tf.Tensor]
"""Called as a Keras model is, ``network(images, training=False)``; gives logits ``[N, classes]``."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        name: where it comes from, for messages.
        models: by the suffix of their figures, ``"_ema"`` for averaged weights.
        config: of the data, the evaluation and the precision.
        normalization: how the input pipeline normalises pixels; None where the network takes 0..255.
        image_size: side of the images if ``config.eval.sizes`` names none, pixels.
        class_names: in label order; None where the network does not know them.
        step: at which it was saved; None where nobody knows.
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
    """Loads raw and averaged weights of a run.

    Args:
        model_dir: the run's folder.
        strategy: devices.
        which: the best checkpoint or the latest.
        changes: dotted settings to change for this evaluation, under ``data``, ``eval`` and ``precision``:
            ``{"data.eval_split": "test", "eval.isize": 256}``.

    Raises:
        ConfigError: for other changes.
        RunFolderError: for a run that cannot be used.
    """
    fixed = [key for key in changes or {} if not key.startswith(_CHANGEABLE)]
    if fixed:
        raise ConfigError(
            f"An evaluation can change settings under data, eval and precision, but not {', '.join(fixed)}: they "
            "belong to the trained network."
        )
    with strategy.scope():
        trained = load_trained(model_dir, which=which, use_ema=False)
        models = {"": trained.model}
        if trained.config.train.ema_decay:
            models["_ema"] = load_trained(model_dir, which=which, use_ema=True).model
    config = trained.config.override(changes or {})
    return Subject(
        model_dir, models, config, config.input_normalization, config.eval_size, trained.class_names, trained.step
    )


def is_export(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a SavedModel."""
    return pathlib.Path(path, SAVED_MODEL_FILE).is_file()


def load_export(path: str, strategy: tf.distribute.Strategy, config: Config) -> Subject:
    """Loads a SavedModel that ``--mode=export`` wrote.

    Args:
        path: its folder.
        strategy: devices.
        config: of the data and the evaluation; images have the export's own size unless ``eval.isize`` says otherwise.

    Raises:
        UsageError: for a SavedModel that is no such export.
    """
    with strategy.scope():
        loaded = tf.saved_model.load(path)
    missing = {"uint8", "class_names"} - set(loaded.signatures)
    if missing or not hasattr(loaded, "image_size"):
        raise UsageError(
            f"The SavedModel {path} is not one that --mode=export of this version wrote; it has the signatures "
            f"{sorted(loaded.signatures)}. Export the run again."
        )

    def network(images: tf.Tensor, *, training: bool) -> tf.Tensor:
        del training  # an export is always as in inference
        return loaded.signatures["uint8"](images=images)["logits"]

    names = tuple(name.decode() for name in loaded.signatures["class_names"]()["class_names"].numpy())
    return Subject(path, {"": network}, config, None, config.eval.isize or int(loaded.image_size), names)


def load_file(config: Config, strategy: tf.distribute.Strategy, *, num_classes: int) -> Subject:
    """Builds the network that a configuration names, with the weights that its ``train.ft_init_ckpt`` names.

    Args:
        config: of the network, the data and the evaluation.
        strategy: devices.
        num_classes: of the data.

    Raises:
        ConfigError: if no weights are named, or their classifier is for another number of classes.
        WeightsError: if they cannot be had, read, or fitted.
    """
    path = config.train.ft_init_ckpt
    if path is None:
        raise ConfigError(
            "--mode=eval needs --model_dir, the folder of a run or of a SavedModel; or weights to evaluate: "
            "--model_name=NAME --hparam_str=train.ft_init_ckpt=PATH."
        )
    with strategy.scope():
        model = build_for(config, num_classes)
        report = load_weights(model, path, prefer_ema=config.train.ft_init_ema)
    if report.missing or report.mismatched:
        raise ConfigError(
            f"The data has {num_classes} classes, and {report.source} has no classifier for them: {report.describe()}"
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
    """Evaluates and prints the result, last as one line of JSON.

    Several sizes (``eval.sizes``) give a plot ``eval_sizes.png``; ``eval.per_class`` gives ``per_class.csv`` and, of
    one label an image, ``confusion.png``: of the averaged weights where there are any, at the best size. That is the
    size with the highest top-1 or, of several labels an image, mAP.

    Args:
        subject: from ``load_run``, ``load_export`` or ``load_file``.
        strategy: devices, those that it was loaded for.
        splits: the data; None opens what the configuration names.
        folder: where to put plots and tables.
        console: where to print; None is standard output.

    Returns:
        The figures of ``Evaluator.run`` with ``step``, ``image_size`` and ``num_examples``, at the best size; of
        several sizes, all such rows under ``sizes``.

    Raises:
        ConfigError, DataError: for settings or data that cannot be used.
    """
    console = console or rich.console.Console()
    source = (splits or open_splits(subject.config.data)).evaluation
    if subject.class_names not in (None, source.class_names):
        raise UsageError(
            f"{subject.name} was trained on the classes {subject.class_names}, but the data has {source.class_names}."
        )
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    for size in subject.config.eval.sizes or (subject.image_size,):
        figures = _evaluate_at(size, subject, strategy, source, console)
        tables = {name: value for name, value in figures.items() if isinstance(value, np.ndarray)}
        row = {"step": subject.step, "image_size": size, "num_examples": source.num_examples, **figures}
        row = {name: value for name, value in row.items() if value is not None and name not in tables}
        where = f"{size} px: " if len(subject.config.eval.sizes) > 1 else ""
        console.print(where + describe_evaluation(row, source.num_examples), highlight=False)
        rows.append(row)
        if not best or row[primary_metric_key(row)] > best["row"][primary_metric_key(row)]:
            best = {"row": row, "tables": tables}
    result = {**best["row"], **({"sizes": rows} if len(rows) > 1 else {})}
    if len(rows) > 1:
        path = pathlib.Path(folder, SIZES_PLOT)
        plots.plot_sizes(rows, path)
        console.print(f"Wrote {path}.", highlight=False)
    if best["tables"]:
        report_classes(best["tables"], source.class_names, pathlib.Path(folder), console)
    console.print(json.dumps(result), highlight=False, soft_wrap=True)
    return result


def _evaluate_at(
    size: int, subject: Subject, strategy: tf.distribute.Strategy, source: Source, console: rich.console.Console
) -> dict[str, Any]:
    config = subject.config
    unreadable = UnreadableImages(config.data.unreadable)
    plan = InputPlan(config.data, config.eval.batch_size, subject.normalization, unreadable)
    evaluator = Evaluator(
        subject.models,
        strategy,
        input_fn=eval_input(source, plan, image_size=size),
        num_examples=source.num_examples,
        batch_size=config.eval.batch_size,
        loss_type=config.train.loss_type,
        per_class=config.eval.per_class,
    )
    with unreadable.explained(source), console.status("evaluating") as status:
        return evaluator.run(lambda done, steps: status.update(f"evaluating at {size} px: {done}/{steps}"))


def run(invocation: Invocation) -> None:
    """Evaluates the run or SavedModel in ``--model_dir``, or without it the weights of ``train.ft_init_ckpt``."""
    options, strategy, splits = invocation.options, invocation.strategy(), None
    model_dir = options.model_dir
    if model_dir is None:
        config = invocation.config()
        splits = open_splits(config.data)
        subject = load_file(config, strategy, num_classes=len(splits.evaluation.class_names))
    elif is_export(model_dir):
        subject = load_export(model_dir, strategy, invocation.config())
    else:
        changes = {**parse_overrides(options.hparam_str), **invocation.data_changes()}
        subject = load_run(model_dir, strategy, which=options.weights, changes=changes)
    folder = options.output_dir or (model_dir if subject.step is not None else ".")
    evaluate(subject, strategy, splits=splits, folder=folder or ".", console=invocation.console)
