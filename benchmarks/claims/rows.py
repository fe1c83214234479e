"""The results of the claims: one JSON line for each finished run, in files that are kept in the repository.

A row has:

- ``setting``, ``seed`` and ``base_epochs``, which identify the run; ``base_epochs`` is the value of ``--epochs``;
- ``epochs``: the epochs of the run, which differ from ``base_epochs`` at equal processor time;
- ``network`` and ``parameters`` (trainable);
- ``curve``: lists of the same length with ``epoch``, ``seconds`` (processor time of the training so far, without
  evaluations), ``top1`` and ``top1_ema`` (shares of the held-out images);
- ``stages``: ``size`` in pixels and ``images_per_second`` of processor time of each stage;
- ``images``: number of held-out images; ``hardware``, ``tensorflow``, ``commit`` (of this repository) and ``date``.
"""

from __future__ import annotations

import json
import pathlib
import platform
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from effnetv2_keras.progressive import Stage
from effnetv2_keras.runs.disk import append_whole

Row = dict[str, Any]


def key_of(row: Row) -> tuple[str, int, float]:
    """Returns what identifies a run."""
    return row["setting"], row["seed"], float(row["base_epochs"])


def read(folder: pathlib.Path) -> list[Row]:
    """Returns the rows of all ``.jsonl`` files of a folder; of several rows of one run, only the first."""
    rows: dict[tuple[str, int, float], Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows.setdefault(key_of(row), row)
    return list(rows.values())


def append(path: pathlib.Path, row: Row) -> None:
    """Appends a row to a file, which is created if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_whole(path, json.dumps(row) + "\n")


def by_setting(rows: Iterable[Row], settings: Sequence[str], base_epochs: float) -> dict[str, dict[int, Row]]:
    """Returns the rows of these settings by seed; settings without rows are left out."""
    found: dict[str, dict[int, Row]] = {name: {} for name in settings}
    for row in rows:
        if row["setting"] in found and row["base_epochs"] == base_epochs:
            found[row["setting"]][row["seed"]] = row
    return {name: dict(sorted(runs.items())) for name, runs in found.items() if runs}


def curve_of(metrics: Sequence[Row]) -> dict[str, list[float]]:
    """Returns the evaluations of a run, from the rows of its ``metrics.jsonl``."""
    digits = {"epoch": 2, "seconds": 1, "top1": 4, "top1_ema": 4}
    evaluations = [{**row, "seconds": row["processor_seconds"]} for row in metrics if row["kind"] == "eval"]
    return {name: [round(row[name], places) for row in evaluations] for name, places in digits.items()}


def speeds_of(metrics: Sequence[Row], stages: Sequence[Stage], batch_size: int) -> list[dict[str, float]]:
    """Returns size and images per second of processor time of each stage, without steps that trace.

    A stage that has too few rows of ``metrics.jsonl`` has the speed 0.
    """
    trained = [row for row in metrics if row["kind"] == "train"]
    speeds = []
    for stage in stages:
        pairs = [
            (row, before)
            for before, row in zip(trained, trained[1:])
            if before["stage"] == row["stage"] == stage.index and not row["compile_seconds"]
        ]
        steps, seconds = (
            sum(row[name] - before[name] for row, before in pairs) for name in ("step", "processor_seconds")
        )
        speeds.append(
            {"size": stage.image_size, "images_per_second": round(steps * batch_size / seconds, 1) if pairs else 0.0}
        )
    return speeds


def epochs_in_equal_time(rows: Iterable[Row], like: str, in_time_of: str, base_epochs: float) -> float:
    """Returns the epochs of a setting that take as much processor time as the run of another one.

    Args:
        rows: rows of this hardware; of both settings, the mean over the seeds counts.
        like: name of the setting, with runs of ``base_epochs`` epochs.
        in_time_of: name of the other setting.
        base_epochs: epochs of the known runs.

    Returns:
        The number of epochs, a multiple of a half.

    Raises:
        ValueError: if one of the settings has no run yet.
    """
    runs = by_setting(rows, (like, in_time_of), base_epochs)
    if missing := {like, in_time_of} - set(runs):
        raise ValueError(f"No finished run of {', '.join(sorted(missing))} on this hardware; run it first.")
    own, other = (
        statistics.fmean(row["curve"]["seconds"][-1] for row in runs[name].values()) for name in (like, in_time_of)
    )
    return round(2 * base_epochs * other / own) / 2


def hardware() -> str:
    """Returns the model of the processor, or its architecture if the model is not known."""
    facts = pathlib.Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
