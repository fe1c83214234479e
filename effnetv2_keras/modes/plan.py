"""``--mode=plan`` and ``--mode=summary``: what a run will do and what a network is made of, before it trains."""

from __future__ import annotations

import collections
import functools
from typing import Callable, Optional

import rich.console
import rich.table
import tensorflow as tf

from effnetv2_keras.architecture import profile, specs
from effnetv2_keras.config import Config
from effnetv2_keras.data.splits import find_sizes
from effnetv2_keras.models import figures
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_models import has_head_dropout
from effnetv2_keras.models.naming import leaf_layers
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.tables import STAGE_HEADINGS, stage_cells
from effnetv2_keras.training.state import schedule_for

Macs = Callable[[int], Optional[int]]
"""Multiply-adds of a network for an image of so many pixels a side; None where they cannot be counted."""


def _table(title: str, *headings: str) -> rich.table.Table:
    table = rich.table.Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def print_plan(config: Config, console: rich.console.Console) -> None:
    """Prints data, network, stages and the learning rate at its landmarks.

    Without the data, what is known of the data set serves. Downloads and trains nothing.

    Args:
        config: the run.
        console: where to print.

    Raises:
        ConfigError, DataError: for settings or data that cannot be used.
    """
    sizes = find_sizes(config.data)
    num_train, num_classes = sizes.num_train, sizes.num_classes
    total_steps = config.total_steps(num_train)
    stages = config.plan(total_steps)
    parameters, macs, note = _figures(config, num_classes)
    console.print(
        f"{num_train:,} images to train on, {sizes.num_eval:,} to evaluate on, {num_classes} classes\n"
        f"{config.model.model_name}: {parameters.total:,} parameters, {parameters.trainable:,} trainable; "
        f"{_billions(macs(config.eval_size))} multiply-adds an image at {config.eval_size} px{note}\n"
        f"{total_steps:,} steps of {config.train.batch_size} images: {_epochs(config, total_steps, num_train)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_stage_table(config, stages, num_train, macs))
    console.print(_learning_rate_table(config, stages, num_train))


def _figures(config: Config, num_classes: int) -> tuple[profile.ParameterCount, Macs, str]:
    """Parameters, multiply-adds, and what else is to be said of the network, on a line of its own."""
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        model = build_for(config, num_classes)
        return figures.count_parameters(model), _macs_of(model), _note(model)
    macs = functools.partial(profile.count_macs, spec, num_classes=num_classes)
    return profile.count_parameters(spec, num_classes=num_classes), lambda size: macs(image_size=size), ""


def _macs_of(model: tf.keras.Model) -> Macs:
    return functools.lru_cache(maxsize=None)(lambda size: figures.count_macs(model, image_size=size))


def _note(model: tf.keras.Model) -> str:
    if has_head_dropout(model):
        return ""
    return "\nIt has no dropout before the classifier: progressive.dropout_rate changes nothing."


def _billions(macs: int | None) -> str:
    return "-" if macs is None else f"{macs / 1e9:.3g} G"


def _epochs(config: Config, total_steps: int, num_train: int) -> str:
    if total_steps == config.train.min_steps:
        return f"{total_steps * config.train.batch_size / num_train:.4g} epochs, to reach train.min_steps"
    return f"{config.train.epochs:g} epochs"


def _stage_table(config: Config, stages: tuple[Stage, ...], num_train: int, macs: Macs) -> rich.table.Table:
    table = _table(
        f"Stages ({config.progressive.schedule}, {config.progressive.order})",
        *STAGE_HEADINGS,
        "steps",
        "epochs",
        "cost of a step",
    )
    largest = macs(max(stage.image_size for stage in stages))
    for stage in stages:
        cost = macs(stage.image_size)
        table.add_row(
            *stage_cells(stage),
            f"{stage.first_step:,} to {stage.end_step:,}",
            f"{stage.num_steps * config.train.batch_size / num_train:.1f}",
            "-" if cost is None or largest is None else f"{cost / largest:.0%}",
        )
    return table


def _learning_rate_table(config: Config, stages: tuple[Stage, ...], num_train: int) -> rich.table.Table:
    train, total_steps = config.train, stages[-1].end_step
    schedule = schedule_for(train, steps_per_epoch=num_train / train.batch_size, total_steps=total_steps)
    landmarks = {0: "start", schedule.warmup_steps: "warm-up over", total_steps - 1: "last step"}
    landmarks = {**{stage.first_step: f"stage {stage.index + 1}" for stage in stages}, **landmarks}
    table = _table(f"Learning rate ({train.lr_sched})", "step", "epoch", "learning rate", "what")
    for step in sorted(landmarks):
        if step < total_steps:
            table.add_row(
                f"{step:,}",
                f"{step * train.batch_size / num_train:.1f}",
                f"{float(schedule(step)):.6g}",
                landmarks[step],
            )
    return table


def print_summary(config: Config, console: rich.console.Console) -> None:
    """Prints the network stage by stage, as in the paper's Table 4, with parameters and multiply-adds.

    One of Keras is printed by the kinds of its layers.

    Args:
        config: names the network and the evaluation size; 1000 classes.
        console: where to print.

    Raises:
        UsageError: for a network of Keras that cannot be built.
    """
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        _print_keras_summary(config, spec, console)
        return
    table = _table(
        f"{spec.name} at {config.eval_size} px", "stage", "operator", "stride", "channels", "layers", "output px",
        "parameters", "M multiply-adds",
    )  # fmt: skip
    for stage, row in enumerate(profile.stage_table(spec, image_size=config.eval_size)):
        table.add_row(
            f"{stage}",
            row.operator,
            f"{row.stride}" if row.stride else "-",
            f"{row.channels}",
            f"{row.layers}",
            f"{row.output_size}",
            f"{row.parameters.total:,}",
            f"{row.macs / 1e6:,.1f}",
        )
    console.print(table)
    parameters = profile.count_parameters(spec)
    macs = profile.count_macs(spec, image_size=config.eval_size)
    flops = profile.count_profiler_flops(spec, image_size=config.eval_size)
    console.print(
        f"{parameters.total:,} parameters ({parameters.trainable:,} trainable), {macs / 1e9:.4g} G multiply-adds with "
        f"1000 classes (convolutions and dense layers); {flops / 1e9:.4g} G by the reference code's count (half of "
        "what TensorFlow's profiler finds)",
        highlight=False,
        soft_wrap=True,
    )


def _print_keras_summary(config: Config, spec: specs.KerasSpec, console: rich.console.Console) -> None:
    model = build_for(config, 1000)
    layers, numbers = collections.Counter[str](), collections.Counter[str]()
    for layer in leaf_layers(model):
        layers[type(layer).__name__] += 1
        numbers[type(layer).__name__] += layer.count_params()
    table = _table(spec.name, "kind of layer", "layers", "parameters")
    for kind, count in numbers.most_common():
        table.add_row(kind, f"{layers[kind]}", f"{count:,}")
    console.print(table)
    parameters, macs = figures.count_parameters(model), figures.count_macs(model, image_size=config.eval_size)
    console.print(
        f"{parameters.total:,} parameters ({parameters.trainable:,} trainable), {_billions(macs)} multiply-adds with "
        f"1000 classes at {config.eval_size} px (convolutions and dense layers){_note(model)}",
        highlight=False,
        soft_wrap=True,
    )
