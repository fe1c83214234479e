"""``--mode=plan`` and ``--mode=summary``: what a run will do and what a network is made of, before it trains."""

from __future__ import annotations

import rich.console
import rich.table

from effnetv2_keras import profile
from effnetv2_keras.config import Config
from effnetv2_keras.data.splits import find_sizes
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.report import STAGE_HEADINGS, stage_cells
from effnetv2_keras.training.state import schedule_for


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
    parameters = profile.count_parameters(config.spec, num_classes=num_classes)
    console.print(
        f"{num_train:,} images to train on, {sizes.num_eval:,} to evaluate on, {num_classes} classes\n"
        f"{config.model.model_name}: {parameters.total:,} parameters, {parameters.trainable:,} trainable; "
        f"{profile.count_macs(config.spec, image_size=config.eval_size, num_classes=num_classes) / 1e9:.3g} G "
        f"multiply-adds an image at {config.eval_size} px\n"
        f"{total_steps:,} steps of {config.train.batch_size} images: {_epochs(config, total_steps, num_train)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_stage_table(config, stages, num_train, num_classes))
    console.print(_learning_rate_table(config, stages, num_train))


def _epochs(config: Config, total_steps: int, num_train: int) -> str:
    if total_steps == config.train.min_steps:
        return f"{total_steps * config.train.batch_size / num_train:.4g} epochs, to reach train.min_steps"
    return f"{config.train.epochs:g} epochs"


def _stage_table(config: Config, stages: tuple[Stage, ...], num_train: int, num_classes: int) -> rich.table.Table:
    table = _table(
        f"Stages ({config.progressive.schedule}, {config.progressive.order})",
        *STAGE_HEADINGS,
        "steps",
        "epochs",
        "cost of a step",
    )
    largest_size = max(stage.image_size for stage in stages)
    largest = profile.count_macs(config.spec, image_size=largest_size, num_classes=num_classes)
    for stage in stages:
        cost = profile.count_macs(config.spec, image_size=stage.image_size, num_classes=num_classes)
        table.add_row(
            *stage_cells(stage),
            f"{stage.first_step:,} to {stage.end_step:,}",
            f"{stage.num_steps * config.train.batch_size / num_train:.1f}",
            f"{cost / largest:.0%}",
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

    Args:
        config: names the variant and the evaluation size; 1000 classes.
        console: where to print.
    """
    spec = config.spec
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
