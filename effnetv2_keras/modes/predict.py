"""``--mode=predict``: classifies image files with the network of a run or with an exported SavedModel."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Literal

import numpy as np
import numpy.typing as npt
import rich.console
import rich.table
import rich.text
import tensorflow as tf
from absl import logging

from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.data.formats import IMAGE_SUFFIXES, NOT_AN_IMAGE, reason_in
from effnetv2_keras.errors import UsageError
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE, SavedModelExporter
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import PREDICTION
from effnetv2_keras.runs.trained import Which, load_trained

Unreadable = Literal["error", "skip"]


class PredictError(UsageError):
    """A predictor or an image cannot be used; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A classifier of image files.

    Attributes:
        class_names: class names in label order.
        classify: returns probabilities (float32 ``[N, classes]``) of encoded image files (string ``[N]``), with the
            preprocessing of evaluation. Raises ``tf.errors.InvalidArgumentError`` if one cannot be decoded.
    """

    class_names: tuple[str, ...]
    classify: Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: path of the image.
        classes: the most likely classes with their probabilities, the most likely first.
    """

    path: pathlib.Path
    classes: tuple[tuple[str, float], ...]


def load_predictor(
    path: str | os.PathLike[str],
    *,
    which: Which = "best",
    use_ema: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Predictor:
    """Loads a predictor from the folder of a run or of an exported SavedModel.

    Args:
        path: the folder.
        which: for a run, ``"best"`` or ``"latest"`` checkpoint.
        use_ema: for a run, whether to use the moving average of the weights, if there is one.
        changes: for a run, other values of ``data.exif_orientation`` and ``data.max_value``.

    Raises:
        PredictError: if the folder is neither, the SavedModel was not written by ``--mode=export``, or there are
            changes for a SavedModel.
        RunFolderError: if the run cannot be loaded.
    """
    path = pathlib.Path(path)
    if (path / SAVED_MODEL_FILE).is_file():
        if changes:
            raise PredictError(
                f"The SavedModel {path} reads images as its run did, so {', '.join(changes)} cannot be changed. "
                "Predict with the folder of the run, or leave the setting out."
            )
        return _load_saved_model(path)
    if not (path / CONFIG_FILE).is_file():
        raise PredictError(
            f"{path} is neither a run, because it has no {CONFIG_FILE}, nor a SavedModel, because it has no "
            f"{SAVED_MODEL_FILE}. Set --model_dir to the folder of a training run or of an export."
        )
    trained = load_trained(path, which=which, use_ema=use_ema)
    trained = dataclasses.replace(trained, config=trained.config.override(changes or {}))
    classifier = SavedModelExporter(trained, trained.config.eval_size).classifier(export=False)
    return Predictor(trained.class_names, lambda files: classifier.encoded(files)["probabilities"])


def _load_saved_model(path: pathlib.Path) -> Predictor:
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, tf.errors.OpError) as error:
        raise PredictError(f"The SavedModel in {path} cannot be loaded ({error}). Export it again.") from error
    missing = {"encoded", "class_names"} - set(loaded.signatures)
    if missing:
        raise PredictError(
            f"The SavedModel {path} has the signatures {sorted(loaded.signatures)} and lacks {sorted(missing)}. "
            "Use a SavedModel that --mode=export wrote."
        )
    names = loaded.signatures["class_names"]()["class_names"].numpy()
    return Predictor(
        tuple(name.decode() for name in names),
        lambda files: loaded.signatures["encoded"](image_bytes=files)["probabilities"],
    )


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Returns image files: paths of files as they are, and for paths of folders all image files below them, sorted.

    Args:
        paths: files with any suffix, and folders.

    Raises:
        PredictError: if there are no paths, a path does not exist, or a folder contains no images.
    """
    if not paths:
        raise PredictError("There are no images to predict. Name files or folders with --images or after the flags.")
    images: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
            if not below:
                suffixes = ", ".join(IMAGE_SUFFIXES)
                raise PredictError(f"There are no images ({suffixes}) in or below the folder {path}. Name another.")
            images += below
        elif path.is_file():
            images.append(path)
        else:
            raise PredictError(f"There is no file or folder {path}. Correct the path.")
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
            leaves it out.

    Returns:
        One prediction per image, in the order of ``find_images``.

    Raises:
        PredictError: if ``top_k`` or ``batch_size`` is below 1, there are no images, or one cannot be decoded.
    """
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise PredictError(f"{name} is {value}; it must be at least 1.")
    images = find_images(paths)
    predictions = []
    for start in range(0, len(images), batch_size):
        for path, probabilities in _classify(predictor, images[start : start + batch_size], unreadable):
            best = np.argsort(-probabilities, kind="stable")[:top_k]
            classes = tuple((predictor.class_names[label], float(probabilities[label])) for label in best)
            predictions.append(Prediction(path, classes))
    return predictions


def _classify(
    predictor: Predictor, paths: Sequence[pathlib.Path], unreadable: Unreadable
) -> Iterator[tuple[pathlib.Path, npt.NDArray[np.float32]]]:
    """Yields each image with its probabilities; a batch that fails is halved until the unreadable image is found."""
    try:
        files = tf.constant([path.read_bytes() for path in paths])
        probabilities = predictor.classify(files).numpy()
    except (OSError, tf.errors.InvalidArgumentError) as error:
        middle = len(paths) // 2
        if middle:
            yield from _classify(predictor, paths[:middle], unreadable)
            yield from _classify(predictor, paths[middle:], unreadable)
        elif unreadable == "skip":
            logging.warning("Skipping an image that cannot be read: %s", paths[0])
        else:
            reason = error if isinstance(error, OSError) else reason_in(error) or f"it is {NOT_AN_IMAGE}"
            raise PredictError(f"Cannot read the image {paths[0]}: {reason}. Repair it or leave it out.") from error
    else:
        yield from zip(paths, probabilities)


def format_table(predictions: Sequence[Prediction], console: rich.console.Console) -> None:
    """Prints predictions as a table with one row per image and class."""
    table = rich.table.Table("image", "class", "probability")
    table.columns[0].overflow = table.columns[1].overflow = "fold"
    table.columns[2].justify = "right"
    for prediction in predictions:
        image = str(prediction.path)
        for name, probability in prediction.classes:
            table.add_row(rich.text.Text(image), rich.text.Text(name), f"{probability:.1%}")
            image = ""
        table.add_section()
    console.print(table)


def to_json(predictions: Sequence[Prediction]) -> str:
    """Returns predictions as JSON: a list of ``{"path", "classes": [{"name", "probability"}, ...]}``."""
    return json.dumps(
        [
            {
                "path": str(prediction.path),
                "classes": [{"name": name, "probability": probability} for name, probability in prediction.classes],
            }
            for prediction in predictions
        ],
        indent=1,
    )


def run(invocation: Invocation) -> None:
    """Classifies the images of the command line and prints a table or JSON."""
    options = invocation.options
    output = invocation.format(["table", "json"])
    changes = invocation.changes(PREDICTION)
    unreadable = Config().override(changes).data.unreadable
    reading = {name: value for name, value in changes.items() if name != "data.unreadable"}
    predictor = load_predictor(invocation.model_dir(), which=options.weights, use_ema=options.use_ema, changes=reading)
    predictions = predict(predictor, [*options.images, *invocation.paths], top_k=options.top_k, unreadable=unreadable)
    if output == "json":
        print(to_json(predictions))
    else:
        format_table(predictions, invocation.console)
