"""What the ablations share: settings, the runs of each with every seed, and what these come to.

A run is an ordinary training in ``OUTPUT_DIR/SETTING/seed_N``; the same command goes on with one that was stopped and
repeats none that is finished. Seeds are outermost and settings take turns within a seed, so that a noisy machine
disturbs all alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

import effnetv2_keras.environment  # noqa: F401  before TensorFlow
import hparams
from benchmarks.ablations import display
from effnetv2_keras.architecture.variants import get_spec
from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

RAMPS = ("randaug_magnitude", "mixup_alpha", "cutmix_alpha", "dropout_rate")
"""The regularisers of a stage."""

RATIOS = {
    "time_ratio": "seconds", "step_ratio": "step_seconds", "fastest_ratio": "fastest_seconds",
    "pixel_ratio": "gigapixels",
}  # fmt: skip
"""To the reference setting, and the figures that they are ratios of."""

DEMO_FIRST, DEMO_LAST = 24, 48
"""Sides of the first and last training images of the demo, pixels; the digits are 28 px and enlarged."""

DEMO: Mapping[str, Any] = {
    "train.epochs": 5,
    "eval.isize": DEMO_LAST,
    "eval.every_epochs": 1000,  # the evaluation at the end alone
    "progressive.image_size.start": DEMO_FIRST,
    "progressive.image_size.end": DEMO_LAST,
    "progressive.randaug_magnitude.start": 2,
    "progressive.randaug_magnitude.end": 10,
    "progressive.dropout_rate.start": 0.05,
    "progressive.dropout_rate.end": 0.3,
    "runtime.log_every": 5,
    "runtime.preflight": False,
    "runtime.tensorboard": False,
    "runtime.keep_checkpoint_max": 1,
}
"""What ``--dataset_cfg=demo`` changes beyond its recipe: minutes rather than an hour on two cores."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of a table.

    Attributes:
        name: as in the table; its folder is named after it.
        model_name: as for ``--model_name``.
        changes: of the recipe, by dotted keys.
        paper: the paper's figures, by column: ``top-1`` (percent), ``hours`` and so on.
        reference: name of the setting whose time this one's is compared with; None: its own.
    """

    name: str
    model_name: str
    changes: Mapping[str, Any]
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reference: str | None = None

    @property
    def folder(self) -> str:
        """The name, as one of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.name)


def make_parser(table: str, description: str | None) -> argparse.ArgumentParser:
    """Makes a parser with the flags that all ablations have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset_cfg", default="demo", help="recipe of hparams/; demo: a small scale, else the paper's"
    )
    parser.add_argument("--data_dir", default=None, help="folder of the images")
    parser.add_argument("--model_names", type=words, default=(), help="in place of the table's, with commas between")
    parser.add_argument("--seeds", type=numbers, default=(0, 1, 2), help="with commas between")
    parser.add_argument("--hparam_str", default="", help="further overrides, as for main.py, for all settings")
    parser.add_argument("--output_dir", default=f"ablations/table_{table}", help="folder of the runs and results")
    parser.add_argument("--strategy", default="auto", help="devices, as for main.py")
    return parser


def words(text: str) -> tuple[str, ...]:
    """Reads ``a,b``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Reads ``1,2``."""
    return tuple(int(part) for part in words(text))


def is_demo(arguments: argparse.Namespace) -> bool:
    """Whether the scale is the small one."""
    return bool(arguments.dataset_cfg.lower() == "demo")


def small_network(output_dir: str, name: str = "efficientnetv2-b0") -> str:
    """Writes a network of half the width and one layer a stage, for the demo; returns its path."""
    spec = get_spec(name)
    spec = dataclasses.replace(spec, name=f"{spec.name}-small", width=0.5 * spec.width, depth=0.1 * spec.depth)
    path = pathlib.Path(output_dir) / f"{spec.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, spec.to_json())
    return str(path)


def chosen_network(arguments: argparse.Namespace, paper: str) -> str:
    """The one network of a table: the one named, or the demo's, or the paper's.

    Raises:
        UsageError: if several are named.
    """
    if len(arguments.model_names) > 1:
        raise UsageError(f"This table is about one network, but --model_names has {len(arguments.model_names)}.")
    if arguments.model_names:
        return str(arguments.model_names[0])
    return small_network(arguments.output_dir) if is_demo(arguments) else paper


def sizes(first: int | None, last: int | None) -> dict[str, Any]:
    """Changes to the ends of the image size, pixels; None leaves the recipe's."""
    ends = {"progressive.image_size.start": first, "progressive.image_size.end": last}
    return {key: size for key, size in ends.items() if size is not None}


def base_config(arguments: argparse.Namespace, model_name: str) -> Config:
    """The recipe for a network at this scale, before a setting changes it."""
    config = hparams.load(arguments.dataset_cfg, model_name)
    config = config.override(DEMO) if is_demo(arguments) else config
    return config.override({"data.data_dir": arguments.data_dir} if arguments.data_dir else {})


def constant_regularisation(config: Config) -> dict[str, Any]:
    """Changes that keep each regulariser at its final value throughout."""
    return {f"progressive.{name}.start": getattr(config.progressive, name).end for name in RAMPS}


def config_of(arguments: argparse.Namespace, setting: Setting, seed: int) -> Config:
    """The configuration of a run: recipe, scale, setting, then ``--hparam_str``."""
    config = base_config(arguments, setting.model_name).override(setting.changes)
    return config.override({**parse_overrides(arguments.hparam_str), "train.seed": seed})


def figures_of(rows: Sequence[Mapping[str, Any]], stages: Sequence[Stage], batch_size: int) -> dict[str, float]:
    """Sums a finished run up.

    Args:
        rows: of ``metrics.jsonl``.
        stages: the plan.
        batch_size: images of a step.

    Returns:
        ``top1`` and ``top1_raw``, percent, of the moving average and of the weights as they are; ``seconds`` of
        training, evaluations and checkpoints left out; ``trace_seconds``, those of each stage's first step;
        ``step_seconds``, what the steps alone take by each stage's median speed, input included, and
        ``fastest_seconds``, by its highest, which other work on the machine disturbs least (of both, where a stage is
        too short for a speed, the time less that of tracing); ``gigapixels`` of training images, which predict them.
    """
    trained = [row for row in rows if row["kind"] == "train"]
    evaluated = [row for row in rows if row["kind"] == "eval"][-1]
    seconds = max(row["seconds"] for row in trained)
    traced = sum(row["compile_seconds"] for row in trained)
    speeds = [[row["images_per_second"] for row in trained if row["stage"] == stage.index] for stage in stages]
    known = [[speed for speed in own if speed > 0] for own in speeds]
    steps, fastest = seconds - traced, seconds - traced
    if all(known):
        images = [stage.num_steps * batch_size for stage in stages]
        steps = sum(count / statistics.median(own) for count, own in zip(images, known))
        fastest = sum(count / max(own) for count, own in zip(images, known))
    return {
        "top1": 100 * evaluated.get("top1_ema", evaluated["top1"]),
        "top1_raw": 100 * evaluated["top1"],
        "seconds": seconds,
        "trace_seconds": traced,
        "step_seconds": steps,
        "fastest_seconds": fastest,
        "gigapixels": sum(stage.num_steps * stage.image_size**2 for stage in stages) * batch_size / 1e9,
    }


def finished(folder: pathlib.Path, config: Config) -> dict[str, float] | None:
    """What the run in a folder came to, if there is one with this configuration and at its end; see ``figures_of``."""
    if not (folder / CONFIG_FILE).exists():
        return None
    done = RunFolder(folder)
    stages, rows = config.plan(config.total_steps(done.num_images()[0])), done.metrics()
    at_end = any(row["kind"] == "eval" and row["step"] == stages[-1].end_step for row in rows)
    if not at_end or done.config().differences(config):
        return None
    return figures_of(rows, stages, config.train.batch_size)


def run(arguments: argparse.Namespace, setting: Setting, seed: int) -> dict[str, float]:
    """Trains a setting with a seed, or goes on with it, or reads what it came to; see ``figures_of``.

    Raises:
        UsageError: as ``training.loop.train``; also if the folder holds a run with other settings.
    """
    folder = pathlib.Path(arguments.output_dir) / setting.folder / f"seed_{seed}"
    config = config_of(arguments, setting, seed)
    if figures := finished(folder, config):
        return figures
    import tensorflow as tf

    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.training.loop import train

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"seed_{seed}.log").open("a") as log:
        console = rich.console.Console(file=log, width=140)
        train(config, folder, strategy=make_strategy(arguments.strategy), console=console)
    tf.keras.backend.clear_session()
    gc.collect()
    figures = finished(folder, config)
    assert figures, f"{folder} has no last evaluation"
    return figures


def run_all(arguments: argparse.Namespace, settings: Sequence[Setting]) -> dict[str, list[dict[str, float]]]:
    """Runs every setting with every seed; of each, the figures in the order of the seeds."""
    results: dict[str, list[dict[str, float]]] = {setting.name: [] for setting in settings}
    for seed in arguments.seeds:
        for setting in settings:
            figures = run(arguments, setting, seed)
            results[setting.name].append(figures)
            line = f"{setting.name}, seed {seed}: top-1 {figures['top1']:.2f} % in {figures['seconds']:.0f} s"
            print(line, file=sys.stderr, flush=True)
    return results


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation (of a sample; 0 of a single value)."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def summarize(
    settings: Sequence[Setting], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """One row for each setting: mean and deviation of each figure, and of its times over the reference's.

    Ratios (``RATIOS``) are taken seed by seed.
    """
    rows = []
    for setting in settings:
        own, others = results[setting.name], results[setting.reference or setting.name]
        row: dict[str, Any] = {"setting": setting.name, "runs": len(own), "paper": dict(setting.paper)}
        row |= {name: spread([figures[name] for figures in own]) for name in own[0]}
        for ratio, name in RATIOS.items():
            row[ratio] = spread([figures[name] / other[name] for figures, other in zip(own, others)])
        rows.append(row)
    return rows


def report(arguments: argparse.Namespace, table: str, title: str, settings: Sequence[Setting]) -> None:
    """Runs the settings, prints ours beside the paper's, draws the plot, and writes and prints the results as JSON."""
    rows = summarize(settings, run_all(arguments, settings))
    folder = pathlib.Path(arguments.output_dir)
    display.print_table(rows, f"Table {table}: {title}")
    display.plot(rows, f"Table {table}: {title}", folder / f"table_{table}.png")
    results = {"table": table, "arguments": vars(arguments), "settings": rows}
    write_atomically(folder / f"table_{table}.json", json.dumps(results, indent=1))
    print(json.dumps(results))
