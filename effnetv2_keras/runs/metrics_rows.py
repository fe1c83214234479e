"""Reading of ``metrics.jsonl``, some of whose lines may be damaged."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Any

from absl import logging

from effnetv2_keras.basics.small_files import parse_json
from effnetv2_keras.errors import UsageError

METRICS_FILE = "metrics.jsonl"
KINDS = ("train", "eval", "rollback")

_WHOLE, _FINITE = ("step", "stage", "image_size"), ("epoch", "seconds", "processor_seconds", "lr_scale")
HEAD = frozenset({"kind", "step", "epoch", "stage", "image_size", "seconds"})
"""Values that this package writes in every row."""
_MOST_LISTED = 5


def read_rows(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Reads the rows of a metrics file, oldest first; a missing file has none.

    Returns:
        The rows, and the numbers of the lines that cannot be read, counted from 1. Neither has a last line without an
        end, which a crash cut short.

    Raises:
        UsageError: if the file cannot be opened.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}. Make it a file that this user can read, or remove it."
        ) from error
    rows, damaged = [], []
    *lines, cut = content.split(b"\n")
    for number, line in enumerate([*lines, cut] if cut else lines, start=1):
        try:
            rows.append(_row(line))
        except ValueError:
            if number <= len(lines):
                damaged.append(number)
    return rows, damaged


def set_aside(path: pathlib.Path, damaged: list[int]) -> None:
    """Renames a metrics file with damaged lines to ``*.damaged``, with a warning."""
    names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
    kept = next(place for place in map(path.with_name, names) if not place.exists())
    path.rename(kept)
    logging.warning("%s The file is kept as %s.", describe_damage(path, damaged), kept)


def describe_damage(path: pathlib.Path, damaged: list[int]) -> str:
    """Returns which lines of a metrics file cannot be read, as sentences."""
    listed = ", ".join(map(str, damaged[:_MOST_LISTED])) + (" and others" if len(damaged) > _MOST_LISTED else "")
    return f"{path} has {len(damaged)} damaged lines, which are left out: {listed}. All other lines are used."


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = parse_json(line.decode())
    if row.get("kind") not in KINDS:
        raise ValueError("unknown kind")
    figures = {name: value for name, value in row.items() if name != "kind"}
    if not all(type(value) is float or (type(value) is int and abs(value) < 2**63) for value in figures.values()):
        raise ValueError("a value is not a number")
    if "step" not in row or (row["kind"] == "rollback" and "lr_scale" not in row):
        raise ValueError("a value is missing")
    if not all(type(figures.get(name, 0)) is int for name in _WHOLE):
        raise ValueError("a value is not a whole number")
    if not all(math.isfinite(figures.get(name, 0)) and figures.get(name, 0) >= 0 for name in (*_WHOLE, *_FINITE)):
        raise ValueError("a value is out of range")
    return row
