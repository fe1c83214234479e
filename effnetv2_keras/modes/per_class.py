"""The summary of ``--mode=eval``: the figures with their interval, those of each class, and what is confused."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rich.console
import rich.table
import rich.text
import tensorflow as tf

from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.class_figures import figures_of_classes, interval, most_confused, of_suffix
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.samples import Sample, explain
from effnetv2_keras.reporting.tables import spreadsheet_cell
from effnetv2_keras.training.mistakes import Mistake

CONFUSION_PLOT, CONFUSION_FILE = "confusion.png", "confusion.csv"
PER_CLASS_FILE = "per_class.csv"
_MOST_ROWS, _MOST_PAIRS = 20, 3
_NAME_WIDTH = 28  # characters, so that a row fits 80 columns
_SUMMARY = {
    "top1": "top-1", "map": "mAP", "balanced_accuracy": "balanced accuracy", "macro_precision": "macro precision",
    "macro_recall": "macro recall", "macro_f1": "macro F1", "ece": "ECE",
}  # fmt: skip


def report_classes(
    figures: Mapping[str, Any], names: Sequence[str], folder: pathlib.Path | None, console: rich.console.Console
) -> None:
    """Prints the figures of an evaluation and of its classes, and writes them as files.

    The files are ``per_class.csv`` and, unless multi-label, ``confusion.csv`` and ``confusion.png``. In a CSV, a class
    name that a spreadsheet would compute as a formula has an apostrophe before it.

    Args:
        figures: result of ``Evaluator.run``. What is of each class is that of the averaged weights if there are any.
        names: class names in label order.
        folder: folder for the files; None writes none.
        console: output.
    """
    suffix = "_ema" if any(name.endswith("_ema") for name in figures) else ""
    tables = of_suffix(figures, suffix)
    show(console, _summary(figures))
    show(console, _worst_classes(tables, names, "EMA" if suffix else ""))
    confusion = tables.get("confusion")
    for true, predicted, count in most_confused(confusion)[:_MOST_PAIRS] if confusion is not None else ():
        total = int(tables["num_positive"][true])
        show(console, f"{count} of {total} {names[true]} were called {names[predicted]}.")
    if folder is None:
        return
    written = [folder / PER_CLASS_FILE]
    _write_csv(written[0], _rows_of_classes(tables, names))
    if confusion is not None:
        written.append(folder / CONFUSION_FILE)
        rows = ([name, *counts] for name, counts in zip(names, confusion.tolist()))
        _write_csv(written[-1], [["true class, predicted class", *names], *rows])
        if plots.try_to_draw(plots.plot_confusion, confusion, names, folder / CONFUSION_PLOT):
            written.append(folder / CONFUSION_PLOT)
    show(console, f"Wrote {', '.join(str(path) for path in written)}.")


def _summary(figures: Mapping[str, Any]) -> rich.table.Table:
    """Returns a table with the figures of the raw and the averaged weights."""
    suffixes = {"raw": "", "EMA": "_ema"} if "top1_ema" in figures else {"": ""}
    table = rich.table.Table(title=f"Evaluation of {figures['num_images']:,} images")
    for heading in ("", *suffixes):
        table.add_column(heading, justify="right" if heading else "left")
    for key, name in _SUMMARY.items():
        values = [_written(figures, key, suffix) for suffix in suffixes.values()]
        if any(values):
            table.add_row(name, *values)
    table.caption = "In parentheses: the 95 % confidence interval."
    return table


def _written(figures: Mapping[str, Any], key: str, suffix: str) -> str:
    value = figures.get(f"{key}{suffix}")
    if value is None:
        return ""
    if key != "top1":
        return f"{value:.4f}"
    low, high = interval(value, figures["num_images"])
    return f"{value:.4f} ({low:.3f} to {high:.3f})"


def _worst_classes(tables: Mapping[str, npt.NDArray[Any]], names: Sequence[str], weights: str) -> rich.table.Table:
    """Returns a table of the classes that have images, the lowest F1 first."""
    of_class = figures_of_classes(tables)
    known = [label for label in np.argsort(of_class["f1"], kind="stable") if tables["num_positive"][label]]
    title = "Classes" if len(known) <= _MOST_ROWS else f"The {_MOST_ROWS} worst of {len(known)} classes"
    table = rich.table.Table(title=f"{title}, lowest F1 first{f' ({weights})' if weights else ''}")
    table.add_column("class", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    columns = {"precision": of_class["precision"], "recall": of_class["recall"], "F1": of_class["f1"]}
    if "average_precision" in tables:
        columns["AP"] = tables["average_precision"]
    for heading in ("images", *columns):
        table.add_column(heading, justify="right")
    for label in known[:_MOST_ROWS]:
        figures = (f"{values[label]:.3f}" for values in columns.values())
        table.add_row(rich.text.Text(names[label]), f"{tables['num_positive'][label]:,}", *figures)
    return table


def _rows_of_classes(tables: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> list[list[Any]]:
    """Returns the rows of ``per_class.csv``, beginning with the headings."""
    columns: dict[str, Sequence[Any]] = {"class": names, "images": tables["num_positive"].tolist()}
    columns.update({name: values.tolist() for name, values in figures_of_classes(tables).items()})
    if "confusion" in tables:
        wrong = tables["confusion"] - np.diag(tables["num_hits"])
        most, count = wrong.argmax(axis=1), wrong.max(axis=1).tolist()
        columns["top1"] = columns["recall"]
        columns["most often taken for"] = [names[other] if times else "" for other, times in zip(most, count)]
        columns["so many times"] = count
    if "average_precision" in tables:
        columns["average precision"] = tables["average_precision"].tolist()
    return [list(columns), *(list(row) for row in zip(*columns.values()))]


def _write_csv(path: pathlib.Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([spreadsheet_cell(cell) for cell in row] for row in rows)


def samples_of(
    mistakes: Sequence[Mistake],
    network: Any,
    names: Sequence[str],
    *,
    pixels: Callable[[tf.Tensor], tf.Tensor],
    normalize: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int,
) -> list[Sample]:
    """Returns wrong answers as pictures.

    Args:
        mistakes: the wrong answers.
        network: what gave them; if it is a Keras model, the pictures have overlays.
        names: class names in label order.
        pixels: returns the levels 0..255 of images as the network takes them.
        normalize: the opposite of ``pixels``.
        batch_size: number of images that fit in memory.
    """
    if not mistakes:
        return []
    levels = pixels(tf.constant(np.stack([mistake.image for mistake in mistakes])))
    images = tf.saturate_cast(tf.round(tf.cast(levels, tf.float32)), tf.uint8).numpy()
    overlays: Sequence[npt.NDArray[np.uint8] | None] = [None] * len(images)
    if isinstance(network, tf.keras.Model):
        _, overlays = explain(network, images, normalize, batch_size=batch_size)
    return [
        Sample(
            image,
            tuple(names[label] for label in mistake.true),
            names[mistake.predicted],
            mistake.probability,
            overlay,
        )
        for image, mistake, overlay in zip(images, mistakes, overlays)
    ]
