"""The sections of ``report.html`` about evaluations: figures with intervals, classes, confusion and mistakes."""

from __future__ import annotations

import base64
import dataclasses
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from effnetv2_keras.reporting.class_figures import figures_of_classes, interval
from effnetv2_keras.reporting.evaluations import MISTAKES_FOLDER, Evaluation, Picture
from effnetv2_keras.runs.run_folder import RunFolder

_MOST_IN_MATRIX, _MOST_CONFUSED, _MOST_PAIRS, _MOST_CLASSES = 30, 20, 3, 100
_THUMBNAIL = 144  # pixels
_ABSENT = "-"
_FIGURES = {
    "top1": "top-1", "top5": "top-5", "map": "mAP", "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision", "macro_recall": "macro recall", "macro_f1": "macro F1", "ece": "ECE",
    "eval_loss": "loss, nats",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix.

    Attributes:
        count: number of images.
        share: share of the images of the true class, in [0, 1].
        correct: whether the predicted class is the true one.
        title: what the cell says, in words.
    """

    count: int
    share: float
    correct: bool
    title: str


@dataclasses.dataclass(frozen=True)
class Section:
    """An evaluation, as the page shows it.

    Attributes:
        name: name of the split.
        about: images, step, size and weights, as a sentence.
        class_headings: headings of ``class_rows``.
        class_rows: name and figures of each class, the lowest F1 first.
        class_note: which classes are left out; empty if none is.
        confused: the most frequent confusions, as sentences.
        matrix_names: names of the classes of ``matrix``.
        matrix: rows of the confusion matrix; empty if there is none.
        matrix_note: which classes the matrix has.
        mistakes: pictures (the second is None if there is none) and what they show.
    """

    name: str
    about: str
    class_headings: tuple[str, ...]
    class_rows: list[tuple[str, ...]]
    class_note: str
    confused: list[str]
    matrix_names: list[str]
    matrix: list[tuple[str, list[Cell]]]
    matrix_note: str
    mistakes: list[tuple[str, str | None, Picture]]


def section_of(evaluation: Evaluation, names: Sequence[str], folder: RunFolder) -> Section:
    """Returns what the page shows of an evaluation.

    Args:
        evaluation: the evaluation, of as many classes as there are names.
        names: class names in label order.
        folder: folder of the run, for the pictures.
    """
    headings, rows = _classes(evaluation, names)
    matrix_names, matrix = _matrix(evaluation, names)
    shown = "" if len(matrix_names) == len(names) else f"The {len(matrix_names)} classes that are confused most. "
    positive = evaluation.classes["num_positive"]
    return Section(
        name=split_name(evaluation),
        about=f"{evaluation.num_images:,} images at {evaluation.image_size} px, step {evaluation.step:,}, "
        f"{'moving average of the weights' if evaluation.averaged else 'raw weights'}",
        class_headings=headings,
        class_rows=rows[:_MOST_CLASSES],
        class_note=f"The {_MOST_CLASSES} lowest of {len(rows):,} classes; --mode=eval writes all to per_class.csv."
        if len(rows) > _MOST_CLASSES
        else "",
        confused=[
            f"{count:,} of {positive[true] or 0:,.0f} {names[true]} were called {names[predicted]}"
            for true, predicted, count in evaluation.confused[:_MOST_PAIRS]
        ],
        matrix_names=matrix_names,
        matrix=matrix,
        matrix_note=shown,
        mistakes=[found for one in evaluation.mistakes if (found := _pictures(one, folder / MISTAKES_FOLDER))],
    )


def split_name(evaluation: Evaluation) -> str:
    """Returns the name of an evaluated split: that of ``data.eval_split``, or ``"evaluation split"``."""
    return evaluation.split or "evaluation split"


def results_of(evaluations: Sequence[Evaluation]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns headings and rows of a table of all evaluations, the newest first; one row for each model."""
    known = [key for key in _FIGURES if any(key in evaluation.figures for evaluation in evaluations)]
    headings = ("split", "images", "step", "weights", *(_FIGURES[key] for key in known))
    rows = []
    for evaluation in reversed(evaluations):
        for suffix in ("_ema", "") if evaluation.averaged else ("",):
            figures = [evaluation.figures.get(f"{key}{suffix}") for key in known]
            cells = (
                _ABSENT if value is None
                else "{:.4f} ({:.3f} to {:.3f})".format(value, *_interval(value, evaluation)) if key == "top1"
                else f"{value:.4f}"
                for key, value in zip(known, figures)
            )  # fmt: skip
            counts = f"{evaluation.num_images:,}", f"{evaluation.step:,}", "EMA" if suffix else "raw"
            rows.append((split_name(evaluation), *counts, *cells))
    return headings, rows


def _interval(share: float, evaluation: Evaluation) -> tuple[float, float]:
    return interval(min(max(share, 0.0), 1.0), max(evaluation.num_images, 0))


def _classes(evaluation: Evaluation, names: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    counts = {key: np.asarray(evaluation.classes[key], float) for key in ("num_positive", "num_predicted", "num_hits")}
    columns = figures_of_classes(counts)
    headings = ["class", "images", "precision", "recall", "F1"]
    if "average_precision" in evaluation.classes:
        columns["average_precision"] = np.asarray(evaluation.classes["average_precision"], float)
        headings.append("average precision")
    order = [label for label in np.argsort(columns["f1"], kind="stable") if counts["num_positive"][label] > 0]
    return tuple(headings), [
        (
            names[label],
            f"{counts['num_positive'][label]:,.0f}",
            *(f"{values[label]:.3f}" for values in columns.values()),
        )
        for label in order
    ]


def _matrix(evaluation: Evaluation, names: Sequence[str]) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    """Returns the names and the rows of the confusion matrix: of all classes, or of those that are confused most."""
    if "average_precision" in evaluation.classes or not evaluation.confused:
        return [], []
    errors = np.zeros(len(names))
    for true, predicted, count in evaluation.confused:
        errors[[true, predicted]] += count
    chosen = list(range(len(names)))
    if len(names) > _MOST_IN_MATRIX:
        chosen = sorted(np.argsort(-errors, kind="stable")[:_MOST_CONFUSED].tolist())
    counts = {(true, predicted): count for true, predicted, count in evaluation.confused}
    counts.update({(label, label): int(hits or 0) for label, hits in enumerate(evaluation.classes["num_hits"])})
    rows = []
    for true in chosen:
        total = int(evaluation.classes["num_positive"][true] or 0)
        cells = [
            Cell(
                count := counts.get((true, predicted), 0),
                min(count / max(total, 1), 1.0),
                true == predicted,
                f"{count:,} of {total:,} {names[true]} were called {names[predicted]}",
            )
            for predicted in chosen
        ]
        rows.append((names[true], cells))
    return [names[label] for label in chosen], rows


def _pictures(mistake: Picture, folder: pathlib.Path) -> tuple[str, str | None, Picture] | None:
    """Returns the pictures of a mistake as data URLs; None if the file is gone or damaged."""
    pictures: list[str | None] = []
    for name in (mistake.picture, mistake.overlay):
        try:
            with PIL.Image.open(folder / pathlib.Path(name or "").name) as image:
                pictures.append(picture_url(np.asarray(image.convert("RGB"))))
        except (OSError, ValueError):
            pictures.append(None)
    return (pictures[0], pictures[1], mistake) if pictures[0] else None


def picture_url(image: npt.NDArray[np.uint8]) -> str:
    """Returns a small JPEG of an image as a data URL."""
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def cards_of(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Returns the key figure of each evaluation, the newest first, as pairs of name and value."""
    cards = []
    for evaluation in reversed(evaluations):
        suffix = "_ema" if evaluation.averaged else ""
        figures: dict[str, Any] = evaluation.figures
        if f"map{suffix}" in figures:
            cards.append((f"mAP on {split_name(evaluation)}", f"{figures[f'map{suffix}']:.1%}"))
        elif f"top1{suffix}" in figures:
            share = figures[f"top1{suffix}"]
            low, high = _interval(share, evaluation)
            cards.append((f"top-1 on {split_name(evaluation)}, 95 %: {low:.1%} to {high:.1%}", f"{share:.1%}"))
    return cards
