"""``--mode=plan``: prints data, network, stages and learning rates of a run without training."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Callable, Optional

import rich.console
import rich.table
import tensorflow as tf

from effnetv2_keras.architecture import profile, specs
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.data.class_weights import plan_classes
from effnetv2_keras.data.pipeline import num_eval_steps
from effnetv2_keras.data.small_copies import describe_copies
from effnetv2_keras.data.sources.known_sizes import Sizes
from effnetv2_keras.data.splits import find_sizes, open_splits
from effnetv2_keras.distribution.gpus import has_accelerator
from effnetv2_keras.models import figures
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_models import has_head_dropout
from effnetv2_keras.modes.estimate import HOPELESS_HOURS, measure, rough_hours_on_cpu
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.progress import format_seconds
from effnetv2_keras.reporting.tables import STAGE_HEADINGS, stage_cells
from effnetv2_keras.training.state import schedule_for

_REPLICAS = (1, 8, 16, 32, 64)

Macs = Callable[[int], Optional[int]]
"""Returns the multiply-adds of a network for an image with this side in pixels; None if they cannot be counted."""


def new_table(title: str, *headings: str) -> rich.table.Table:
    """Returns an empty table with right-aligned columns."""
    table = rich.table.Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def print_plan(config: Config, console: rich.console.Console) -> None:
    """Prints data, network, stages, and the learning rate at important steps. Downloads and trains nothing.

    If the data is not present, the published sizes of the data set are used.

    Args:
        config: configuration of the run.
        console: output.

    Raises:
        ConfigError, DataError: if the settings or data cannot be used.
    """
    sizes = find_sizes(config.data)
    num_train, num_classes = sizes.num_train, sizes.num_classes
    config = config.with_batch_for(num_train)
    total_steps = config.total_steps(num_train)
    stages = config.plan(total_steps)
    parameters, macs, note = _figures(config, num_classes)
    show(
        console,
        f"{num_train:,} images to train on, {sizes.num_eval:,} to evaluate on, {num_classes} classes\n"
        f"{config.model.model_name}: {parameters.total:,} parameters, {parameters.trainable:,} trainable; "
        f"{billions(macs(config.eval_size))} multiply-adds an image at {config.eval_size} px{note}\n"
        f"{total_steps:,} steps of {config.train.batch_size} images: {_epochs(config, total_steps, num_train)}\n"
        f"{_evaluations(config, sizes, total_steps)}\n{_replicas(config)}",
    )
    for told in (plan_classes(config, sizes.train), describe_copies(sizes.train, config)) if sizes.train else ():
        if told:
            show(console, told)
    show(console, _stage_table(config, stages, num_train, macs))
    if config.train.head_share:
        show(console, "Stage 1 trains only the classifier (train.head_share).")
    show(console, _learning_rate_table(config, stages, num_train))
    show(console, "\n".join(filter(None, [_rough_time(config, stages, macs), _precision_note(config)])))


def _rough_time(config: Config, stages: Sequence[Stage], macs: Macs) -> str:
    """Returns a sentence with the time on a CPU, and a warning with ways out if it is hopeless; empty with a GPU."""
    hours = rough_hours_on_cpu(config, stages, macs)
    if hours is None:
        return "--estimate measures how long the run will take on this machine."
    told = f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes" if hours * 60 >= 2 else "2 minutes"
    sentence = f"Roughly {told} of training on the CPU cores of this machine; --estimate measures it."
    if hours < HOPELESS_HOURS:
        return sentence
    return (
        f"{sentence}\nWARNING: that is long. Faster: --model_name=efficientnetv2-nano, a smaller "
        "progressive.image_size.end, fewer train.epochs, --dataset_cfg=finetune (from ImageNet weights), or a GPU."
    )


def _precision_note(config: Config) -> str:
    """Returns a sentence on bfloat16 without a GPU or TPU, where it saves no time; empty otherwise."""
    if config.precision.policy != "mixed_bfloat16" or has_accelerator():
        return ""
    return (
        "precision.policy=mixed_bfloat16 was no faster than float32 on the CPUs where it was measured. Leave it out "
        "unless the run is for a GPU or TPU."
    )


def print_estimate(config: Config, strategy: tf.distribute.Strategy, console: rich.console.Console) -> None:
    """Measures a few steps of each stage, and prints how long the run will take on this machine.

    Raises:
        ConfigError, DataError: if the settings or data cannot be used.
    """
    splits = open_splits(config.data)
    config = config.with_batch_for(splits.train.num_examples)
    found = measure(config, splits, strategy)
    steps = ", ".join(f"{seconds:.3g} s" for seconds in found.stages)
    show(
        console,
        f"The run takes about {format_seconds(found.total)} on this machine: steps of {steps}; evaluations of "
        f"{found.evaluation:.3g} s; {found.compiling:.3g} s to start.",
    )


def _figures(config: Config, num_classes: int) -> tuple[profile.ParameterCount, Macs, str]:
    """Returns parameters, multiply-adds, and a note about the network on a separate line (may be empty)."""
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        model = build_for(config, num_classes)
        return figures.count_parameters(model), _macs_of(model), dropout_note(model)
    macs = functools.partial(profile.count_macs, spec, num_classes=num_classes)
    return profile.count_parameters(spec, num_classes=num_classes), lambda size: macs(image_size=size), ""


def _macs_of(model: tf.keras.Model) -> Macs:
    return functools.lru_cache(maxsize=None)(lambda size: figures.count_macs(model, image_size=size))


def dropout_note(model: tf.keras.Model) -> str:
    """Returns a note if a Keras network has no dropout before the classifier; otherwise an empty string."""
    if has_head_dropout(model):
        return ""
    return "\nIt has no dropout before the classifier: progressive.dropout_rate changes nothing."


def billions(macs: int | None) -> str:
    """Returns a number of multiply-adds in billions as text; ``-`` if it is None."""
    return "-" if macs is None else f"{macs / 1e9:.3g} G"


def _epochs(config: Config, total_steps: int, num_train: int) -> str:
    if total_steps == config.train.min_steps:
        return f"{total_steps * config.train.batch_size / num_train:.4g} epochs, to reach train.min_steps"
    return f"{config.train.epochs:g} epochs"


def _evaluations(config: Config, sizes: Sizes, total_steps: int) -> str:
    """Returns a sentence with the number of evaluations, the steps between them and the steps of each."""
    period = config.evaluation_period(sizes.num_train)
    count = math.ceil(total_steps / period)
    epochs = float(period / config.steps_per_epoch(sizes.num_train))
    steps = num_eval_steps(sizes.num_eval, config.eval.batch_size)
    every = f", every {float(period):,.4g} steps ({epochs:.4g} epochs) and at the end" if count > 1 else " at the end"
    return f"{count:,} evaluations{every}, each of {steps:,} steps of {config.eval.batch_size} images"


def _replicas(config: Config) -> str:
    """Returns a sentence with the images per replica, for usual numbers of replicas."""
    batch = config.train.batch_size
    shares = [f"{batch // n:,} + {config.eval_batch_size(n) // n:,} on {n}" for n in _REPLICAS if batch % n == 0]
    uneven = ", ".join(str(n) for n in _REPLICAS if batch % n)
    return (
        f"Images at a time on each replica, training + evaluation: {', '.join(shares)} replicas"
        f"{f'; train.batch_size={batch} cannot be split evenly over {uneven}' if uneven else ''}"
    )


def _stage_table(config: Config, stages: tuple[Stage, ...], num_train: int, macs: Macs) -> rich.table.Table:
    table = new_table(
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
    schedule = schedule_for(config, steps_per_epoch=config.steps_per_epoch(num_train), total_steps=total_steps)
    landmarks = {0: "start", schedule.warmup_steps: "end of warm-up", total_steps - 1: "last step"}
    landmarks = {**{stage.first_step: f"stage {stage.index + 1}" for stage in stages}, **landmarks}
    table = new_table(f"Learning rate ({train.lr_sched})", "step", "epoch", "learning rate", "event")
    for step in sorted(landmarks):
        if step < total_steps:
            table.add_row(
                f"{step:,}",
                f"{step * train.batch_size / num_train:.1f}",
                f"{float(schedule(step)):.6g}",
                landmarks[step],
            )
    return table


def describe_changes(before: Config, after: Config) -> str:
    """Returns the settings that differ between two configurations, with the new and the old value of each."""
    old = dict(flatten(before.model_dump()))
    new = dict(flatten(after.model_dump()))
    return ", ".join(f"{key}={value} ({old[key]})" for key, value in new.items() if value != old[key])


def run(invocation: Invocation) -> None:
    """Prints the plan of the configuration, and the settings that differ from the recipe."""
    config = invocation.config()
    print_plan(config, invocation.console)
    if invocation.options.estimate:
        print_estimate(config, invocation.strategy(), invocation.console)
    changed = describe_changes(invocation.recipe, config)
    if changed:
        invocation.say(f"Settings that differ from the recipe: {changed}")
