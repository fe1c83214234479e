"""``--mode=eval``: evaluates a run, an export or a weights file at one or more image sizes."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import rich.console
import tensorflow as tf

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config.overrides import parse_all_overrides
from effnetv2_keras.data.pipeline import InputPlan, eval_input
from effnetv2_keras.data.sources.base import Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.data.views import Views
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.per_class import report_classes, samples_of
from effnetv2_keras.modes.settings import EVALUATION_OF_AN_EXPORT, EVALUATION_OF_WEIGHTS
from effnetv2_keras.modes.subjects import Subject, is_export, load_export, load_file, load_run
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.evaluations import EVALUATIONS_FILE, MISTAKES_FOLDER, evaluation_of, note_evaluation
from effnetv2_keras.reporting.primary_metric import best_of, check_best_metric, primary_metric_key
from effnetv2_keras.reporting.tables import describe_evaluation
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.input import eval_batch_size
from effnetv2_keras.training.mistakes import Mistake
from effnetv2_keras.training.verified import verified_evaluation

SIZES_PLOT = "eval_sizes.png"
_MOST_MISTAKES = 24


def evaluate(
    subject: Subject,
    strategy: tf.distribute.Strategy,
    *,
    splits: Splits | None = None,
    folder: str | os.PathLike[str] | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Evaluates networks and prints the metrics, finally as one line of JSON.

    With several sizes in ``eval.sizes``, it also writes the plot ``eval_sizes.png``. The best size is the one with the
    best ``eval.best_metric``. With a folder, it writes the files of ``report_classes`` for this size; for a run, it
    also notes the evaluation in ``evaluations.json`` and ``mistakes/`` in the folder of the run, for the report.

    Args:
        subject: result of ``load_run``, ``load_export`` or ``load_file``.
        strategy: the distribution strategy that the networks were loaded with.
        splits: training and evaluation data; None opens the data of the configuration.
        folder: folder for plots and tables, created if missing; None writes no tables, and a plot of sizes into the
            current folder.
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
    if folder is not None:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    chosen = subject.config.eval.best_metric
    check_best_metric(subject.config, several=source.multi_label)
    rows: list[dict[str, Any]] = []
    made: list[_Evaluated] = []
    for size in subject.config.eval.sizes or (subject.image_size,):
        evaluated = _evaluate_at(size, subject, strategy, source, console)
        row = {"step": subject.step, "image_size": size, "num_examples": source.num_examples, **evaluated.figures}
        row = {name: value for name, value in row.items() if value is not None and not isinstance(value, np.ndarray)}
        where = f"{size} px: " if len(subject.config.eval.sizes) > 1 else ""
        show(console, where + describe_evaluation(row, source.num_examples, chosen=chosen))
        rows.append(row)
        made.append(evaluated)
    best = best_of(rows, primary_metric_key(rows[0], chosen))
    result = {**best, **({"sizes": rows} if len(rows) > 1 else {})}
    try:
        if len(rows) > 1:
            path = pathlib.Path(folder or ".", SIZES_PLOT)
            if plots.try_to_draw(plots.plot_sizes, rows, path):
                show(console, f"Wrote {path}.")
        _report(made[rows.index(best)], subject, source, None if folder is None else pathlib.Path(folder), console)
    finally:  # a file that cannot be written must not cost the metrics
        show(console, json.dumps(result))
    return result


class _Evaluated(NamedTuple):
    """The result of ``Evaluator.run`` at a size, and what it says of the wrong answers."""

    size: int
    figures: dict[str, Any]
    mistakes: list[Mistake]
    plan: InputPlan


def _evaluate_at(
    size: int, subject: Subject, strategy: tf.distribute.Strategy, source: Source, console: rich.console.Console
) -> _Evaluated:
    config = subject.config
    unreadable = UnreadableImages(config.data.unreadable, config.data.max_unreadable)
    batch_size = eval_batch_size(config, strategy)
    views = Views.of(config.eval.tta, config.data, size)
    plan = InputPlan(views.data, batch_size, subject.normalization, unreadable)
    evaluator = Evaluator(
        {suffix: views.averaged(model, config.train.loss_type) for suffix, model in subject.models.items()},
        strategy,
        input_fn=eval_input(source, plan, image_size=views.loaded_size),
        num_examples=source.num_examples,
        batch_size=batch_size,
        loss_type=config.train.loss_type,
        max_unreadable=config.data.max_unreadable,
        keep_mistakes=0 if subject.folder is None else _MOST_MISTAKES,
    )
    with (
        unreadable.explained(source),
        console.status("evaluating") as status,
        doing(f"evaluating at {size} px") as activity,
    ):

        def on_step(done: int, steps: int) -> None:
            activity.count(done, steps)
            status.update(activity.text)

        figures = evaluator.run(on_step)
    return _Evaluated(size, figures, evaluator.mistakes.worst(), plan)


def _report(
    evaluated: _Evaluated,
    subject: Subject,
    source: Source,
    folder: pathlib.Path | None,
    console: rich.console.Console,
) -> None:
    """Prints and writes the figures of each class; notes the evaluation and its mistakes in the folder of the run."""
    report_classes(evaluated.figures, source.class_names, folder, console)
    if subject.folder is None or subject.step is None:
        return
    *_, network = subject.models.values()
    plan = evaluated.plan
    mistakes = samples_of(
        evaluated.mistakes,
        network,
        source.class_names,
        pixels=plan.pixels,
        normalize=plan.normalize,
        batch_size=min(plan.batch_size, _MOST_MISTAKES),
    )
    noted = evaluation_of(
        subject.config, evaluated.figures, source.num_examples, step=subject.step, image_size=evaluated.size
    )
    try:
        with subject.folder.writable():
            note_evaluation(subject.folder, noted, mistakes)
    except UsageError as error:  # such as a run that this user may only read, with --output_dir elsewhere
        show(console, f"The report of the run will not show this evaluation. {error}")
        return
    show(
        console,
        f"Noted in {subject.folder / EVALUATIONS_FILE}, with the {len(mistakes)} most confident mistakes as pictures "
        f"in {subject.folder / MISTAKES_FOLDER}. --mode=report --model_dir={subject.folder.path} shows them.",
    )


def run(invocation: Invocation) -> None:
    """Evaluates the run or SavedModel in ``--model_dir``, or without it the weights of ``train.ft_init_ckpt``."""
    options, strategy, splits = invocation.options, invocation.strategy(), None
    model_dir = options.model_dir
    if {"eval.isize", "eval.sizes"} <= parse_all_overrides(options.hparam_str).keys():
        raise ConfigError(
            "eval.sizes lists the image sizes, so eval.isize would change nothing. Leave one of them out."
        )
    if model_dir is None:
        invocation.refuse("Weights without a run have no checkpoints", "weights")
        config = invocation.config(EVALUATION_OF_WEIGHTS)
        splits = open_splits(config.data)
        subject = load_file(config, strategy, num_classes=len(splits.evaluation.class_names))
    elif is_export(model_dir):
        invocation.refuse("A SavedModel holds the weights that were exported", "weights")
        subject = load_export(model_dir, strategy, invocation.config(EVALUATION_OF_AN_EXPORT))
    else:
        invocation.refuse("A run has its own network and settings", "model_name", "dataset_cfg")
        changes = {**parse_all_overrides(options.hparam_str), **invocation.data_changes()}
        subject = load_run(model_dir, strategy, which=options.weights, changes=changes)
    folder = options.output_dir or (model_dir if subject.folder else None)
    evaluate(subject, strategy, splits=splits, folder=folder, console=invocation.console)
