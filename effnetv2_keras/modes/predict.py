"""``--mode=predict``: classifies image files with the network of a run or with an exported SavedModel."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import rich.console
import rich.table
import rich.text
import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.config import Config
from effnetv2_keras.data.formats import IMAGE_SUFFIXES, NOT_AN_IMAGE, reason_in
from effnetv2_keras.data.left_out import first_names
from effnetv2_keras.data.sources.walking import describe, find_image_files, report_left_out
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.predictor import PredictError, Predictor, load_predictor
from effnetv2_keras.modes.settings import PREDICTION
from effnetv2_keras.reporting.console import show

Unreadable = Literal["error", "skip", "include"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: path of the image.
        classes: the most likely classes with their probabilities, the most likely first; empty after an error.
        error: why the image cannot be read; None if it was classified.
    """

    path: pathlib.Path
    classes: tuple[tuple[str, float], ...]
    error: str | None = None


def find_images(paths: Sequence[str | os.PathLike[str]], *, unreadable: Unreadable = "error") -> list[pathlib.Path]:
    """Returns image files: paths of files as they are, and for paths of folders all image files below them, sorted.

    Hidden files, and what programs leave in folders, are no images; see ``walking.find_image_files``.

    Args:
        paths: files with any suffix, and folders.
        unreadable: ``"skip"`` warns of broken links and of images of other kinds in folders; ``"error"`` raises an
            error if there are broken links, or more images of other kinds than images that can be decoded.

    Raises:
        PredictError: if there are no paths, a path does not exist, or a folder contains no images.
        DataError: as described for ``unreadable``.
    """
    if "" in paths:
        raise PredictError("The path of an image is empty. Perhaps a variable of the shell is not set.")
    if not paths:
        raise PredictError("There are no images to predict. Name files or folders with --images or after the flags.")
    if not all(os.fspath(path) for path in paths):
        raise PredictError("The path of an image is empty. Name a file or folder; '.' is the current folder.")
    images: list[pathlib.Path] = []
    for path in (pathlib.Path(os.path.expanduser(path)) for path in paths):
        if os.path.isdir(path):
            found = find_image_files(path)
            report_left_out(path, {str(path): found}, skip=unreadable == "skip")
            if not found.images:
                suffixes, left_out = ", ".join(IMAGE_SUFFIXES), describe([found.left_out])
                raise PredictError(
                    f"There are no images ({suffixes}) in or below the folder {path}"
                    + (f", only {left_out}. " if left_out else ". ")
                    + "Name another."
                )
            images += sorted(map(pathlib.Path, found.images))
        elif os.path.isfile(path):
            images.append(path)
        else:
            raise PredictError(f"There is no file or folder {path} that can be opened. Correct the path.")
    return images


def predict(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike[str]],
    *,
    top_k: int = 5,
    batch_size: int = 32,
    unreadable: Unreadable = "error",
) -> list[Prediction]:
    """Classifies image files.

    Args:
        predictor: result of ``load_predictor``.
        paths: files and folders, as for ``find_images``.
        top_k: largest number of classes per image, at least 1.
        batch_size: images per batch, at least 1.
        unreadable: what to do with an image that cannot be decoded: ``"error"`` raises an error, ``"skip"`` warns and
            leaves it out, ``"include"`` warns and returns an entry with its ``error``.

    Returns:
        One prediction per image, in the order of ``find_images``.

    Raises:
        PredictError: if ``top_k`` or ``batch_size`` is below 1, there are no images, or one cannot be decoded.
    """
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise PredictError(f"{name} is {value}; it must be at least 1.")
    images = find_images(paths, unreadable=unreadable)
    predictions = []
    for start in range(0, len(images), batch_size):
        for path, probabilities in _classify(predictor, images[start : start + batch_size], unreadable):
            if isinstance(probabilities, str):
                predictions.append(Prediction(path, (), probabilities))
                continue
            best = np.argsort(-probabilities, kind="stable")[:top_k]
            classes = tuple((predictor.class_names[label], float(probabilities[label])) for label in best)
            predictions.append(Prediction(path, classes))
    return predictions


def _classify(
    predictor: Predictor, paths: Sequence[pathlib.Path], unreadable: Unreadable
) -> Iterator[tuple[pathlib.Path, npt.NDArray[np.float32] | str]]:
    """Yields each image with its probabilities, or with the reason why it cannot be read, if that is to be included.

    A batch that fails is halved until the unreadable image is found.
    """
    try:
        files = tf.constant([path.read_bytes() for path in paths])
        probabilities = predictor.classify(files).numpy()
    except (OSError, tf.errors.InvalidArgumentError) as error:
        middle = len(paths) // 2
        if middle:
            yield from _classify(predictor, paths[:middle], unreadable)
            yield from _classify(predictor, paths[middle:], unreadable)
        else:
            reason = str(error) if isinstance(error, OSError) else reason_in(error) or f"it is {NOT_AN_IMAGE}"
            if unreadable == "error":
                message = f"Cannot read the image {paths[0]}: {reason}. Repair it or leave it out."
                raise PredictError(message) from error
            logging.warning("Skipping an image that cannot be read: %s: %s", paths[0], reason)
            if unreadable == "include":
                yield paths[0], reason
    else:
        yield from zip(paths, probabilities)


def format_table(
    predictions: Sequence[Prediction], console: rich.console.Console, *, independent: bool = False
) -> None:
    """Prints predictions as a table with one row per image and class; images that cannot be read are left out.

    Args:
        predictions: result of ``predict``.
        console: output.
        independent: as in ``Predictor``; the table says so.
    """
    caption = "The classes are independent: each probability stands alone." if independent else None
    table = rich.table.Table("image", "class", "probability", caption=caption)
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for prediction in predictions:
        image = printable(str(prediction.path))
        for name, probability in prediction.classes:
            table.add_row(rich.text.Text(image), rich.text.Text(name), f"{probability:.1%}")
            image = ""
        table.add_section()
    show(console, table)


def to_json(predictions: Sequence[Prediction]) -> str:
    """Returns predictions as JSON: a list of ``{"path", "classes": [{"name", "probability"}, ...]}``.

    An image that cannot be read has no classes, and a text ``"error"``.
    """
    return json.dumps(
        [
            {
                "path": str(prediction.path),
                "classes": [{"name": name, "probability": probability} for name, probability in prediction.classes],
                **({"error": prediction.error} if prediction.error else {}),
            }
            for prediction in predictions
        ],
        indent=1,
    )


def run(invocation: Invocation) -> None:
    """Classifies the images of the command line and prints a table or JSON.

    Raises:
        PredictError: after the output, if an image cannot be read, unless ``data.unreadable`` is ``"skip"`` and another
            image can be read.
    """
    options = invocation.options
    output = invocation.format(["table", "json"])
    changes = invocation.changes(PREDICTION)
    policy = Config().override(changes).data.unreadable
    reading = {name: value for name, value in changes.items() if name != "data.unreadable"}
    predictor = load_predictor(invocation.model_dir(), which=options.weights, use_ema=options.use_ema, changes=reading)
    paths = [*options.images, *invocation.paths]
    images = find_images(paths, unreadable=policy)
    predictions = predict(predictor, images, top_k=options.top_k, unreadable="include")
    if output == "json":
        print(to_json(predictions))
    else:
        format_table(predictions, invocation.console, independent=predictor.independent)
    failed = [str(prediction.path) for prediction in predictions if prediction.error]
    if failed and (policy == "error" or len(failed) == len(predictions)):
        sys.stdout.flush()
        advice = " To accept this, set --hparam_str=data.unreadable=skip." if len(failed) < len(predictions) else ""
        raise PredictError(
            f"{len(failed):,} of {len(predictions):,} images cannot be read: {first_names(failed)}. Repair them or "
            f"leave them out.{advice}"
        )
