"""Predictions as a table, CSV, JSON or JSON lines, and the file of features."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rich.console
import rich.table
import rich.text

from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.modes.predictor import PredictError
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.tables import spreadsheet_cell
from effnetv2_keras.runs.disk import replacing, write_atomically

FORMATS = ("table", "json", "csv", "jsonl")
_WIDTH = 80
_CELLS = ("class", "probability")
_FRAME = 10 + len("probability")  # characters of a row that are neither path nor class


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: path of the image.
        classes: the most likely classes with their probabilities, the most likely first; empty after an error.
        error: why the image cannot be read; None if it was classified.
        features: what the classifier sees, float32 ``[d]``; None after an error and if they were not asked for.
    """

    path: pathlib.Path
    classes: tuple[tuple[str, float], ...]
    error: str | None = None
    features: npt.NDArray[np.float32] | None = dataclasses.field(default=None, compare=False, repr=False)


def format_of(path: str) -> str:
    """Returns the format of a file of predictions by its ending.

    Raises:
        PredictError: if the ending names none.
    """
    ending = pathlib.Path(path).suffix.lower()[1:]
    if ending not in FORMATS:
        raise PredictError(
            f"--output={path} has {f'the ending .{ending}' if ending else 'no ending'}, which names no format. Use "
            f".csv, .json or .jsonl, or add --format with one of {', '.join(FORMATS)}."
        )
    return ending


def check_writable(flag: str, path: str) -> None:
    """Creates the folder of a file, so that a long prediction does not end without a place for its result.

    Raises:
        PredictError: if the path is that of a folder, or its folder cannot be written.
    """
    place = pathlib.Path(path)
    if place.is_dir():
        raise PredictError(f"{flag}={path} is a folder. Give the path of a file in it, such as {place / 'FILE'}.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(flag, path, error) from error
    if not os.access(place.parent, os.W_OK):
        raise PredictError(f"{flag}={path}: this user cannot write in {place.parent}. Choose another path.")


def _unwritable(flag: str, path: str, error: OSError) -> PredictError:
    return PredictError(f"{flag}={path} cannot be written: {error.strerror or error}. Choose another path.")


def write_predictions(predictions: Sequence[Prediction], path: str, format_name: str, *, independent: bool) -> str:
    """Writes a file of predictions atomically, and returns a sentence that says how many rows it has.

    Args:
        predictions: result of ``predict``.
        path: the file.
        format_name: one of ``FORMATS``.
        independent: as for ``format_table``.

    Raises:
        PredictError: if the file cannot be written.
    """
    try:
        write_atomically(pathlib.Path(path), as_text(predictions, format_name, independent=independent))
    except OSError as error:
        raise _unwritable("--output", path, error) from error
    failed = sum(prediction.error is not None for prediction in predictions)
    reasons = f", {failed:,} of them with the reason why an image cannot be read" if failed else ""
    return f"Wrote {path}: {len(predictions):,} rows{reasons}."


def write_features(predictions: Sequence[Prediction], path: str, class_names: Sequence[str]) -> str:
    """Writes the features of all images that were classified, and returns a sentence that says how many there are.

    Args:
        predictions: result of ``predict`` with ``features``; at least one has features.
        path: the file, which ``numpy.load`` reads: ``embeddings``, float32 ``[N, d]``; ``images``, their paths;
            ``classes``, the most likely class of each; ``class_names``, all class names in label order.
        class_names: class names in label order.

    Raises:
        PredictError: if the file cannot be written.
    """
    found = [(prediction, prediction.features) for prediction in predictions if prediction.features is not None]
    rows, features = [prediction for prediction, _ in found], np.stack([features for _, features in found])
    try:
        with replacing(pathlib.Path(path)) as file:
            np.savez(
                file,
                embeddings=features,
                images=np.array([printable(str(prediction.path)) for prediction in rows]),
                classes=np.array([prediction.classes[0][0] for prediction in rows]),
                class_names=np.array(class_names),
            )
    except OSError as error:
        raise _unwritable("--embeddings", path, error) from error
    return f"Wrote {path}: the {features.shape[1]:,} features of {len(rows):,} images."


def as_text(predictions: Sequence[Prediction], format_name: str, *, independent: bool) -> str:
    """Returns predictions in one of ``FORMATS``, as the content of a file."""
    if format_name == "csv":
        return to_csv(predictions)
    if format_name == "json":
        return f"{to_json(predictions)}\n"
    if format_name == "jsonl":
        return to_json_lines(predictions)
    text = io.StringIO()
    format_table(predictions, rich.console.Console(file=text, width=_WIDTH), independent=independent)
    return text.getvalue()


def format_table(
    predictions: Sequence[Prediction], console: rich.console.Console, *, independent: bool = False
) -> None:
    """Prints predictions as a table of at most 80 columns with one row per image and class, or one row per error.

    Args:
        predictions: result of ``predict``; a path that is too long for the table is shortened in the middle.
        console: output.
        independent: as in ``Predictor``; the table says so.
    """
    caption = "The classes are independent: each probability stands alone." if independent else None
    room = max(16, min(console.width, _WIDTH) - _FRAME)
    names = [name for prediction in predictions for name, _ in prediction.classes]
    narrow = min(max(map(len, names), default=room), room // 2)
    for_class = room // 2 if any(prediction.error for prediction in predictions) else max(narrow, len("class"))
    table = rich.table.Table(caption=caption)
    table.add_column("image", overflow="fold", max_width=room - for_class)
    table.add_column("class", overflow="fold", max_width=for_class)
    table.add_column("probability", justify="right")
    for prediction in predictions:
        image = shortened(printable(str(prediction.path)), room - for_class)
        if prediction.error:
            table.add_row(rich.text.Text(image), rich.text.Text(f"cannot be read: {prediction.error}"), "-")
        for name, probability in prediction.classes:
            table.add_row(rich.text.Text(image), rich.text.Text(name), f"{probability:.1%}")
            image = ""
        table.add_section()
    show(console, table)


def shortened(text: str, width: int) -> str:
    """Returns a text with its middle replaced by ``...`` if it has more than ``width`` characters.

    Args:
        text: a path, whose end tells more than its beginning.
        width: largest number of characters, at least 8.
    """
    start = (width - 3) // 3
    return text if len(text) <= width else f"{text[:start]}...{text[len(text) - (width - 3 - start) :]}"


def to_json(predictions: Sequence[Prediction]) -> str:
    """Returns predictions as JSON: a list of ``{"path", "classes": [{"name", "probability"}, ...]}``.

    An image that cannot be read has no classes, and a text ``"error"``.
    """
    return json.dumps([_fields(prediction) for prediction in predictions], indent=1)


def to_json_lines(predictions: Sequence[Prediction]) -> str:
    """Returns the objects of ``to_json``, one a line."""
    return "".join(f"{json.dumps(_fields(prediction))}\n" for prediction in predictions)


def _fields(prediction: Prediction) -> dict[str, Any]:
    return {
        "path": str(prediction.path),
        "classes": [{"name": name, "probability": probability} for name, probability in prediction.classes],
        **({"error": prediction.error} if prediction.error else {}),
    }


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Returns predictions as CSV with the columns image, class, probability, class_2, probability_2, ... and error.

    A path that a spreadsheet would compute as a formula begins with ``./``, and such a class name with an apostrophe.
    """
    most = max((len(prediction.classes) for prediction in predictions), default=0) or 1
    headings = [f"{name}{suffix}" for suffix in ("", *(f"_{k}" for k in range(2, most + 1))) for name in _CELLS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *headings, "error"])
    for prediction in predictions:
        path = printable(str(prediction.path))
        cells = [cell for name, share in prediction.classes for cell in (spreadsheet_cell(name), f"{share:.6g}")]
        cells += [""] * (len(headings) - len(cells))
        writer.writerow([path if spreadsheet_cell(path) == path else f"./{path}", *cells, prediction.error or ""])
    return text.getvalue()
