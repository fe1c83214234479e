"""``--mode=predict``: classifies image files with the network of a run or with an exported SavedModel."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.config import Config
from effnetv2_keras.data.formats import NOT_AN_IMAGE, reason_in
from effnetv2_keras.data.left_out import first_names
from effnetv2_keras.modes.image_paths import Listed, Unreadable, find_images, list_images
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.predictions import (
    FORMATS,
    Prediction,
    as_text,
    check_writable,
    format_of,
    format_table,
    write_features,
    write_predictions,
)
from effnetv2_keras.modes.predictor import PredictError, Predictor, load_predictor
from effnetv2_keras.modes.settings import PREDICTION
from effnetv2_keras.reporting.progress import counted

_BATCH_SIZE = 32
_READERS = 8  # threads, most of whose time is spent waiting for the disk

_Row = tuple[npt.NDArray[np.float32], ...]
"""The probabilities of an image and, if asked for, its features."""
_Run = Callable[[tf.Tensor], Sequence[tf.Tensor]]


def predict(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike[str]],
    *,
    top_k: int = 5,
    batch_size: int = _BATCH_SIZE,
    unreadable: Unreadable = "error",
) -> list[Prediction]:
    """Classifies image files.

    Args:
        predictor: result of ``load_predictor``; if it was loaded with features, the predictions have them.
        paths: files and folders, as for ``find_images``.
        top_k: largest number of classes per image, at least 1.
        batch_size: images per batch, at least 1.
        unreadable: what to do with an image that cannot be read: ``"error"`` raises an error, ``"skip"`` warns and
            leaves it out, ``"include"`` warns and returns an entry with its ``error``, also for a path that does not
            exist and for a folder without images.

    Returns:
        One prediction per image, in the order of ``find_images``.

    Raises:
        PredictError: if ``top_k`` or ``batch_size`` is below 1, there are no images, or one cannot be decoded.
    """
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise PredictError(f"{name} is {value}; it must be at least 1.")
    if unreadable == "include":
        listed = list_images(paths)
    else:
        listed = [Listed(path) for path in find_images(paths, unreadable=unreadable)]
    predictions = []
    for prediction in classified(predictor, listed, top_k=top_k, batch_size=batch_size):
        if prediction.error and unreadable == "error":
            raise PredictError(
                f"Cannot read the image {prediction.path}: {prediction.error}. Repair it or leave it out."
            )
        if prediction.error:
            logging.warning("Skipping an image that cannot be read: %s: %s", prediction.path, prediction.error)
        if not prediction.error or unreadable == "include":
            predictions.append(prediction)
    return predictions


def classified(
    predictor: Predictor, listed: Sequence[Listed], *, top_k: int, batch_size: int = _BATCH_SIZE
) -> Iterator[Prediction]:
    """Yields the prediction for each path in order, with an ``error`` for what cannot be read.

    Only the files of one batch are in memory at a time.

    Args:
        predictor: result of ``load_predictor``.
        listed: the paths.
        top_k: largest number of classes per image, at least 1.
        batch_size: images per batch, at least 1.
    """
    run: _Run = predictor.embed or (lambda files: (predictor.classify(files),))
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(listed), batch_size):
            batch = listed[start : start + batch_size]
            contents = list(readers.map(_read, batch))
            rows = iter(_rows(run, [content for content in contents if isinstance(content, bytes)]))
            for item, content in zip(batch, contents):
                row = next(rows) if isinstance(content, bytes) else content
                if isinstance(row, str):
                    yield Prediction(item.path, (), row)
                    continue
                best = np.argsort(-row[0], kind="stable")[:top_k]
                classes = tuple((predictor.class_names[label], float(row[0][label])) for label in best)
                yield Prediction(item.path, classes, features=row[1] if len(row) > 1 else None)


def _read(item: Listed) -> bytes | str:
    """Returns the bytes of a file, or why it cannot be read."""
    try:
        return item.problem or item.path.read_bytes()
    except OSError as error:
        return f"it cannot be opened: {error.strerror or error}"


def _rows(run: _Run, files: Sequence[bytes]) -> list[_Row | str]:
    """Returns for each file its row, or why it cannot be decoded. A batch that fails is halved until the file is found.

    Args:
        run: returns tensors ``[N, ...]`` for the bytes of files.
        files: the bytes of the files.
    """
    if not files:
        return []
    try:
        return list(zip(*(output.numpy() for output in run(tf.constant(files, tf.string)))))
    except tf.errors.OpError as error:
        middle = len(files) // 2
        return [*_rows(run, files[:middle]), *_rows(run, files[middle:])] if middle else [_reason(error)]


def _reason(error: Any) -> str:
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return "it needs more memory than there is"
    return reason_in(error) or f"it is {NOT_AN_IMAGE}"


def run(invocation: Invocation) -> None:
    """Classifies the images of the command line and prints the predictions or writes them to ``--output``.

    Raises:
        PredictError: after the output, if an image cannot be read, unless ``data.unreadable`` is ``"skip"`` and another
            image can be read.
    """
    options = invocation.options
    format_name = _format(invocation)
    changes = invocation.changes(PREDICTION)
    policy = Config().override(changes).data.unreadable
    reading = {name: value for name, value in changes.items() if name != "data.unreadable"}
    model_dir = invocation.model_dir()
    listed = list_images([*options.images, *invocation.paths])
    predictor = load_predictor(
        model_dir,
        which=options.weights,
        use_ema=options.use_ema,
        changes=reading,
        features=options.embeddings is not None,
    )
    stream = classified(predictor, listed, top_k=options.top_k)
    predictions = list(counted(stream, len(listed), "predicting"))
    _write(predictions, predictor, format_name, invocation)
    _check(predictions, policy)


def _format(invocation: Invocation) -> str:
    """Returns the format of the predictions, after checks of the files to write."""
    output, embeddings = invocation.options.output, invocation.options.embeddings
    format_name = invocation.format(FORMATS)
    if output is not None:
        check_writable("--output", output)
        format_name = format_name if invocation.options.format else format_of(output)
    if embeddings is not None:
        check_writable("--embeddings", embeddings)
        if pathlib.Path(embeddings).suffix != ".npz":
            raise PredictError(f"--embeddings={embeddings} must end in .npz, the format in which NumPy saves arrays.")
    return format_name


def _write(predictions: Sequence[Prediction], predictor: Predictor, format_name: str, invocation: Invocation) -> None:
    """Prints the predictions, or writes them to ``--output``, and writes the features to ``--embeddings``."""
    output, embeddings = invocation.options.output, invocation.options.embeddings
    independent = predictor.independent
    if output is not None:
        invocation.say(write_predictions(predictions, output, format_name, independent=independent))
    elif format_name == "table":
        format_table(predictions, invocation.console, independent=independent)
    else:
        sys.stdout.write(as_text(predictions, format_name, independent=independent))
    sys.stdout.flush()
    if embeddings is not None and any(prediction.features is not None for prediction in predictions):
        written = write_features(predictions, embeddings, predictor.class_names)
        if output is not None or format_name == "table":
            invocation.say(written)
        else:  # the output is for a program
            logging.info("%s", written)


def _check(predictions: Sequence[Prediction], policy: str) -> None:
    """Warns of images that cannot be read, or raises ``PredictError`` as the policy says."""
    failed = [f"{prediction.path} ({prediction.error})" for prediction in predictions if prediction.error]
    if not failed:
        return
    summary = f"{len(failed):,} of {len(predictions):,} images cannot be read: {first_names(failed)}"
    if policy == "skip" and len(failed) < len(predictions):
        logging.warning("%s.", summary)
        return
    advice = " To accept this, set --hparam_str=data.unreadable=skip." if len(failed) < len(predictions) else ""
    raise PredictError(f"{summary}. Repair them or leave them out.{advice}")
