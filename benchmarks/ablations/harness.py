"""Functions that the ablations share: settings, a run for each setting and seed, and summaries of the runs.

A run is an ordinary training in ``OUTPUT_DIR/SETTING/seed_N``. The same command resumes a stopped run and does not
repeat a finished one. All settings run with one seed before the next seed, so that other work on the machine slows all
settings alike.
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

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
import hparams
from benchmarks.ablations import display
from effnetv2_keras.architecture.variants import get_spec
from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

RAMPS = ("randaug_magnitude", "mixup_alpha", "cutmix_alpha", "dropout_rate")
"""The regularizers of a stage."""

RATIOS = {
    "time_ratio": "seconds", "step_ratio": "step_seconds", "fastest_ratio": "fastest_seconds",
    "pixel_ratio": "gigapixels",
}  # fmt: skip
"""Names of the ratios to the reference setting, and the figure from which each is computed."""

DEMO_FIRST, DEMO_LAST = 24, 48
"""Sides of the first and last training images of the demo, pixels. The digits have 28 px and are resized."""

DEMO: Mapping[str, Any] = {
    "train.epochs": 5,
    "eval.isize": DEMO_LAST,
    "eval.every_epochs": 1000,  # evaluates only at the end
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
"""Changes to the recipe ``demo``, so that a run takes minutes instead of an hour on two cores."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of a table.

    Attributes:
        name: name in the table; also determines the name of the folder.
        model_name: network, as for ``--model_name``.
        changes: changes to the recipe, by dotted key.
        paper: the paper's figures, by column: ``top-1`` (percent), ``hours`` and so on.
        reference: name of the setting with which the times are compared; None for this setting itself.
    """

    name: str
    model_name: str
    changes: Mapping[str, Any]
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reference: str | None = None

    @property
    def folder(self) -> str:
        """The name of the folder: ``name`` with underscores in place of special characters."""
        return re.sub(r"[^\w.-]+", "_", self.name)


def make_parser(table: str, description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags of all ablations."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset_cfg", default="demo", help="recipe of hparams/; demo runs at a small scale, others at the paper's"
    )
    parser.add_argument("--data_dir", default=None, help="folder of the images")
    parser.add_argument("--model_names", type=words, default=(), help="networks, separated by commas")
    parser.add_argument("--seeds", type=numbers, default=(0, 1, 2), help="seeds, separated by commas")
    parser.add_argument("--hparam_str", default="", help="overrides for all settings, as for main.py")
    parser.add_argument("--output_dir", default=f"ablations/table_{table}", help="folder of the runs and results")
    parser.add_argument("--strategy", default="auto", help="devices, as for main.py")
    return parser


def words(text: str) -> tuple[str, ...]:
    """Parses words separated by commas, such as ``a,b``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Parses integers separated by commas, such as ``1,2``."""
    return tuple(int(part) for part in words(text))


def is_demo(arguments: argparse.Namespace) -> bool:
    """Returns whether the ablation runs at the small scale of the demo."""
    return bool(arguments.dataset_cfg.lower() == "demo")


def small_network(output_dir: str, name: str = "efficientnetv2-b0") -> str:
    """Writes a network for the demo, of half the width and with one layer per stage; returns its path."""
    spec = get_spec(name)
    spec = dataclasses.replace(spec, name=f"{spec.name}-small", width=0.5 * spec.width, depth=0.1 * spec.depth)
    path = pathlib.Path(output_dir) / f"{spec.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, spec.to_json())
    return str(path)


def chosen_network(arguments: argparse.Namespace, paper: str) -> str:
    """Returns the network of a table with one network: the one in ``--model_names``, the demo's or the paper's.

    Raises:
        UsageError: if ``--model_names`` has several.
    """
    if len(arguments.model_names) > 1:
        raise UsageError(
            f"This table is about one network, but --model_names has {len(arguments.model_names)}; give only one."
        )
    if arguments.model_names:
        return str(arguments.model_names[0])
    return small_network(arguments.output_dir) if is_demo(arguments) else paper


def sizes(first: int | None, last: int | None) -> dict[str, Any]:
    """Returns the changes that set the first and last image size, pixels; None keeps that of the recipe."""
    ends = {"progressive.image_size.start": first, "progressive.image_size.end": last}
    return {key: size for key, size in ends.items() if size is not None}


def base_config(arguments: argparse.Namespace, model_name: str) -> Config:
    """Returns the configuration of the recipe for a network at the chosen scale, without the changes of a setting."""
    config = hparams.load(arguments.dataset_cfg, model_name)
    config = config.override(DEMO) if is_demo(arguments) else config
    return config.override({"data.data_dir": arguments.data_dir} if arguments.data_dir else {})


def constant_regularisation(config: Config) -> dict[str, Any]:
    """Returns the changes that keep each regularizer at its final value in all stages."""
    return {f"progressive.{name}.start": getattr(config.progressive, name).end for name in RAMPS}


def config_of(arguments: argparse.Namespace, setting: Setting, seed: int) -> Config:
    """Returns the configuration of a run: recipe and scale, changed by the setting, then by ``--hparam_str``."""
    config = base_config(arguments, setting.model_name).override(setting.changes)
    return config.override({**parse_overrides(arguments.hparam_str), "train.seed": seed})


def figures_of(rows: Sequence[Mapping[str, Any]], stages: Sequence[Stage], batch_size: int) -> dict[str, float]:
    """Returns the figures of a finished run.

    Args:
        rows: rows of ``metrics.jsonl``.
        stages: the stage plan.
        batch_size: global batch, images.

    Returns:
        The figures by name:

        - ``top1`` and ``top1_raw``: percent, of the moving average and of the weights without averaging;
        - ``seconds``: training time without evaluations and checkpoints;
        - ``trace_seconds``: time of the first step of each stage;
        - ``step_seconds``: time of all steps at the median speed of each stage, including input;
        - ``fastest_seconds``: the same at the highest speed of each stage, on which other work on the machine has the
          least effect;
        - ``gigapixels``: 10^9 pixels of training images, which predict the time of the steps.

        If a stage is too short to have a speed, ``step_seconds`` and ``fastest_seconds`` are ``seconds`` less
        ``trace_seconds``.
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
    """Returns the figures of the run in a folder (see ``figures_of``), or None unless it is finished and matches.

    Args:
        folder: folder of the run.
        config: the configuration that the run must have.
    """
    if not (folder / CONFIG_FILE).exists():
        return None
    done = RunFolder(folder)
    stages, rows = config.plan(config.total_steps(done.num_images()[0])), done.metrics()
    at_end = any(row["kind"] == "eval" and row["step"] == stages[-1].end_step for row in rows)
    if not at_end or done.config().differences(config):
        return None
    return figures_of(rows, stages, config.train.batch_size)


def run(arguments: argparse.Namespace, setting: Setting, seed: int) -> dict[str, float]:
    """Trains, resumes, or only reads the run of a setting with a seed, and returns its figures, see ``figures_of``.

    Raises:
        UsageError: as ``training.loop.train``, or if the folder holds a run with other settings.
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
    """Runs every setting with every seed; returns, by setting, the figures in the order of the seeds."""
    results: dict[str, list[dict[str, float]]] = {setting.name: [] for setting in settings}
    for seed in arguments.seeds:
        for setting in settings:
            figures = run(arguments, setting, seed)
            results[setting.name].append(figures)
            line = f"{setting.name}, seed {seed}: top-1 {figures['top1']:.2f} % in {figures['seconds']:.0f} s"
            print(line, file=sys.stderr, flush=True)
    return results


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the mean and the sample standard deviation (0 for a single value)."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def summarize(
    settings: Sequence[Setting], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """Returns a row for each setting: mean and standard deviation of each figure and of the ratios to the reference.

    The ratios (``RATIOS``) are computed separately for each seed.
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
    """Runs the settings, prints a table that compares the results with the paper, and writes the plot and JSON."""
    rows = summarize(settings, run_all(arguments, settings))
    folder = pathlib.Path(arguments.output_dir)
    display.print_table(rows, f"Table {table}: {title}")
    display.plot(rows, f"Table {table}: {title}", folder / f"table_{table}.png")
    results = {"table": table, "arguments": vars(arguments), "settings": rows}
    write_atomically(folder / f"table_{table}.json", json.dumps(results, indent=1))
    print(json.dumps(results))
