"""The output of ``eval.per_class``: metrics of each class, and the confusion matrix."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rich.console

from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.tables import spreadsheet_cell

CONFUSION_PLOT = "confusion.png"
PER_CLASS_FILE = "per_class.csv"
_NUM_WORST = 5


def report_classes(
    tables: Mapping[str, npt.NDArray[Any]], names: Sequence[str], folder: pathlib.Path, console: rich.console.Console
) -> None:
    """Writes ``per_class.csv`` and, unless multi-label, ``confusion.png``; prints the worst classes.

    In the CSV, a class name that a spreadsheet would compute as a formula has an apostrophe before it.

    Args:
        tables: array metrics of ``Evaluator.run`` with ``per_class``. Metrics of the moving average of the weights have
            precedence over those of the raw weights.
        names: class names in label order.
        folder: folder for the files.
        console: output.
    """
    suffix = "_ema" if any(name.endswith("_ema") for name in tables) else ""
    written = [folder / PER_CLASS_FILE]
    headings: tuple[str, ...]
    if f"confusion{suffix}" in tables:
        confusion = tables[f"confusion{suffix}"]
        headings, rows = ("top1", "most often taken for", "so many times"), _mistakes(confusion, names)
        if plots.try_to_draw(plots.plot_confusion, confusion, names, folder / CONFUSION_PLOT):
            written.append(folder / CONFUSION_PLOT)
    else:
        headings = ("average precision",)
        rows = list(zip(names, tables[f"num_positive{suffix}"].tolist(), tables[f"average_precision{suffix}"].tolist()))
    with written[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "images", *headings))
        writer.writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    worst = sorted((row for row in rows if row[1]), key=lambda row: row[2])[:_NUM_WORST]
    listed = ", ".join(f"{name} {share:.3f} of {count}" for name, count, share, *_ in worst)
    show(console, f"Lowest {headings[0].replace('top1', 'top-1')}: {listed}.")
    show(console, f"Wrote {' and '.join(map(str, written))}.")


def _mistakes(confusion: npt.NDArray[np.int64], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns for each class: name, number of images, accuracy, most frequent wrong prediction, and its count."""
    counts, hits = confusion.sum(axis=1), confusion.diagonal()
    wrong = confusion - np.diag(hits)
    return [
        (
            name,
            int(count),
            hit / count if count else float("nan"),
            names[mistaken] if errors[mistaken] else "",
            int(errors[mistaken]),
        )
        for name, count, hit, errors, mistaken in zip(names, counts, hits, wrong, wrong.argmax(axis=1))
    ]
