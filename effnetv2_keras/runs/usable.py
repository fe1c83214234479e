"""Which checkpoint of a run can be used, and what its folder tells of it."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from absl import logging

from effnetv2_keras.basics.small_files import parse_json, read_text
from effnetv2_keras.runs.checkpoint_files import CheckpointFiles
from effnetv2_keras.runs.disk import RunFolderError
from effnetv2_keras.runs.metrics_rows import METRICS_FILE
from effnetv2_keras.runs.run_folder import RunFolder

BEST_METRIC = "best.json"


def read_note(path: pathlib.Path) -> dict[str, Any]:
    """Reads ``best.json``, which describes the best checkpoint; returns an empty dict if there is none to read."""
    if not path.exists():
        return {}
    try:
        note: dict[str, Any] = parse_json(read_text(path))
        if (
            not isinstance(note.get("metric"), str)
            or type(note.get("value")) not in (int, float)
            or (
                not math.isfinite(note["value"])  # no value is above NaN
            )
        ):
            raise ValueError("it has no metric with a value")
    except ValueError as error:
        logging.warning("%s cannot be read (%s); the next evaluation counts as the best.", path, error)
        return {}
    return note


def refuse_lost(folder: RunFolder) -> None:
    """Raises RunFolderError if a folder without checkpoints tells of training, which saves one before its first step.

    A new run would overwrite what is left, such as the metrics, if only the mount of ``checkpoints`` failed.
    """
    log, best = folder / METRICS_FILE, folder / "best"
    left = [path.name for path in (log,) if path.is_file() and path.stat().st_size]
    left += [best.name for files in (CheckpointFiles(best),) if files.steps or (best / BEST_METRIC).exists()]
    if left:
        raise RunFolderError(
            f"{folder.path} has no checkpoint in {folder / 'checkpoints'}, but {' and '.join(left)} of an earlier "
            "training. Check that the checkpoints were not moved and that their disk is mounted. To train from the "
            f"start, choose another --model_dir, or remove {folder.path}."
        )


def newest_intact(files: CheckpointFiles, folder: RunFolder) -> int | None:
    """Returns the step of the newest intact checkpoint and warns of damaged newer ones; None without any checkpoint.

    Raises:
        RunFolderError: if all checkpoints are damaged, or they are gone.
    """
    step, damages = files.newest_intact()
    if step is None and not damages:
        refuse_lost(folder)
    listed = "; ".join(f"{files.prefix(number)}: {damage}" for number, damage in damages.items())
    if damages and step is None:
        raise RunFolderError(
            f"No checkpoint of {folder.path} can be read: {listed}. Restore an intact copy of one. To train from the "
            f"start, choose another --model_dir, or remove {folder.path}."
        )
    if damages and step is not None:
        logging.warning("Some checkpoints are damaged: %s. Using %s instead.", listed, files.prefix(step))
    return step
