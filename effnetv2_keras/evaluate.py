"""``--mode=eval``: evaluates a finished or running run's checkpoint on a split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import rich.console
import tensorflow as tf

from effnetv2_keras import specs
from effnetv2_keras.data.pipeline import InputPlan, UnreadableImages, eval_input
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.training.checkpoints import Which, load_trained
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.report import describe_evaluation
from effnetv2_keras.training.run_folder import RunFolderError

_CHANGEABLE = ("data.", "eval.", "precision.")


def evaluate_run(
    model_dir: str,
    *,
    strategy: tf.distribute.Strategy,
    which: Which = "best",
    changes: Mapping[str, Any] | None = None,
    splits: Splits | None = None,
    spec: specs.ModelSpec | None = None,
    console: rich.console.Console | None = None,
) -> dict[str, Any]:
    """Evaluates raw and averaged weights of a checkpoint in one pass and prints the result, last as one line of JSON.

    Args:
        model_dir: the run's folder.
        strategy: devices.
        which: the best checkpoint or the latest.
        changes: dotted settings to change for this evaluation, under ``data``, ``eval`` and ``precision``:
            ``{"data.eval_split": "test", "eval.isize": 256}``.
        splits: the data; None opens what the configuration names.
        spec: a network other than the one that the configuration names.
        console: where to print; None is standard output.

    Returns:
        The figures of ``Evaluator.run`` with ``step``, ``image_size`` and ``num_examples``.

    Raises:
        ConfigError, DataError, RunFolderError: for settings, data or a run that cannot be used.
    """
    fixed = [key for key in changes or {} if not key.startswith(_CHANGEABLE)]
    if fixed:
        raise ConfigError(
            f"An evaluation can change settings under data, eval and precision, but not {', '.join(fixed)}: they "
            "belong to the trained network."
        )
    console = console or rich.console.Console()
    with strategy.scope():
        trained = load_trained(model_dir, which=which, use_ema=False, spec=spec)
        models = {"": trained.model}
        if trained.config.train.ema_decay:
            models["_ema"] = load_trained(model_dir, which=which, use_ema=True, spec=spec).model
    config = trained.config.override(changes or {})
    source = (splits or open_splits(config.data)).evaluation
    if source.class_names != trained.class_names:
        raise RunFolderError(
            f"{model_dir} was trained on the classes {trained.class_names}, but the data has {source.class_names}."
        )
    normalization = None if config.model.include_preprocessing else trained.spec.normalization
    plan = InputPlan(config.data, config.eval.batch_size, normalization, UnreadableImages(config.data.unreadable))
    evaluator = Evaluator(
        models,
        strategy,
        input_fn=eval_input(source, plan, image_size=config.eval_size),
        num_examples=source.num_examples,
        batch_size=config.eval.batch_size,
    )
    with console.status("evaluating") as status:
        figures = evaluator.run(lambda done, steps: status.update(f"evaluating {done}/{steps}"))
    result = {
        "step": trained.step, "image_size": config.eval_size, "num_examples": source.num_examples, **figures
    }  # fmt: skip
    console.print(describe_evaluation(result, source.num_examples), highlight=False)
    console.print(json.dumps(result), highlight=False, soft_wrap=True)
    return result
