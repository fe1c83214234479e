"""A run of a claim in a process of its own: ``python -m benchmarks.claims.job JSON``; see ``harness.jobs_of``."""

from __future__ import annotations

import datetime
import pathlib
import sys
from typing import Any

from benchmarks.claims import harness, rows
from benchmarks.one_core import use_core
from effnetv2_keras.config import CONFIG_FILE, Facts
from effnetv2_keras.runs.run_folder import RunFolder


def run(job: dict[str, Any]) -> None:
    """Trains, or resumes an interrupted training, and appends the results to those of the claim."""
    use_core(job["core"])
    import rich.console
    import tensorflow as tf

    from effnetv2_keras.architecture.profile import count_parameters
    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.runs.provenance import read_provenance
    from effnetv2_keras.training.loop import train

    folder, strategy = RunFolder(job["folder"]), make_strategy("cpu")
    splits, facts = open_photos(job["photos"])
    base = harness.base_config(job["photos"], facts, job["base_epochs"])
    config = harness.config_of(job, base, job["seed"])
    if job["like"]:
        config = config.override({"train.epochs": epochs_in_equal_time(job, folder)})
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with folder.path.with_suffix(".log").open("a") as log:
        console = rich.console.Console(file=log, width=140)
        train(config, folder.path, strategy=strategy, splits=splits, console=console)
    metrics, stages = folder.metrics(), config.plan(config.total_steps(facts.num_train))
    row = {
        **{name: job[name] for name in ("setting", "seed", "base_epochs")},
        "epochs": config.train.epochs,
        "network": config.spec.name,
        "parameters": count_parameters(config.spec, num_classes=len(splits.train.class_names)).trainable,
        "curve": rows.curve_of(metrics),
        "stages": rows.speeds_of(metrics, stages, config.train.batch_size),
        "images": splits.evaluation.num_examples,
        "hardware": rows.hardware(),
        "tensorflow": tf.__version__,
        "commit": read_provenance(folder).get("git commit", ""),
        "date": datetime.date.today().isoformat(),
    }
    rows.append(pathlib.Path(job["results"]), row)
    curve = row["curve"]
    print(
        f"{row['setting']}, seed {row['seed']}: {row['epochs']:g} epochs in {curve['seconds'][-1] / 60:.1f} minutes, "
        f"top-1 {curve['top1'][-1]:.3f}, EMA {curve['top1_ema'][-1]:.3f}",
        flush=True,
    )


def open_photos(photos: str) -> tuple[Any, Facts]:
    """Returns the training images with the validation and test images together, and the facts for the recipe."""
    import hparams
    from effnetv2_keras.data.sources.base import FileSource
    from effnetv2_keras.data.splits import Splits, open_splits, shorter_side

    data = hparams.load("folder").data.model_copy(update={"data_dir": photos})
    parts = [open_splits(data.model_copy(update={"eval_split": name})) for name in ("validation", "test")]
    train = parts[0].train
    label_of = {path: labels[0] for part in parts for path, labels in part.evaluation.labels_of.items()}
    held_out = FileSource(list(label_of), list(label_of.values()), train.class_names)
    held_out.root = parts[0].evaluation.root
    return Splits(train, held_out), Facts(train.num_examples, shorter_side(train), None)


def epochs_in_equal_time(job: dict[str, Any], folder: RunFolder) -> float:
    """Returns the epochs of a run that shall take as much processor time as that of another setting.

    They are those of the run if it goes on. Else they follow from the finished runs on this hardware.
    """
    if (folder / CONFIG_FILE).exists():
        return folder.config().train.epochs
    results = pathlib.Path(job["results"]).parent
    known = [row for row in rows.read(results) if row["hardware"] == rows.hardware()]
    return rows.epochs_in_equal_time(known, job["like"], job["in_time_of"], job["base_epochs"])


if __name__ == "__main__":
    harness.work(run, sys.argv[1])
