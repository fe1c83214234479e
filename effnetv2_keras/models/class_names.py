"""Decodes class probabilities into class names."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import tensorflow as tf

from effnetv2_keras.basics.small_files import parse_json
from effnetv2_keras.basics.text_files import read_text
from effnetv2_keras.errors import UsageError

Labels = Union[str, "os.PathLike[str]", Sequence[str]]
Named = list[tuple[str, str, float]]


def decode_predictions(preds: Any, top: int = 5, labels: Labels | None = None) -> list[Named]:
    """Returns the most likely classes of each image.

    Args:
        preds: scores ``[N, classes]``, an array or a tensor; a larger score means a more likely class.
        top: number of classes per image, at least 1. If there are fewer classes, all are returned.
        labels: class names in label order: a list; a text file with one name per line; a JSON file with a list; or a
            JSON file like Keras' ``imagenet_class_index.json``, ``{"0": ["n01440764", "tench"], ...}``. None for the
            1000 classes of ImageNet; Keras downloads their file unless it is in ``~/.keras/models``.

    Returns:
        For each image, a list of ``(identifier, name, score)`` in descending order of the score. The identifier is that
        of ImageNet or of the JSON file; for plain names it is the class number.

    Raises:
        UsageError: if the shape, ``top`` or the labels are invalid, or the names of ImageNet cannot be downloaded.
    """
    classes = None if labels is None else _read(labels)
    count = 1000 if classes is None else len(classes)
    scores = np.asarray(preds)
    if scores.ndim != 2 or scores.shape[1] != count:
        raise UsageError(f"preds has shape {scores.shape}, but with {count} labels it must be (images, {count}).")
    if top < 1:
        raise UsageError(f"top is {top}, but must be at least 1.")
    if classes is None:
        return _of_imagenet(scores, top)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*classes[index], float(row[index])) for index in likeliest] for row, likeliest in zip(scores, order)]


def _of_imagenet(scores: np.ndarray[Any, Any], top: int) -> list[Named]:
    try:
        named: list[Named] = tf.keras.applications.imagenet_utils.decode_predictions(scores, top=top)
    except Exception as error:  # Keras raises a plain Exception for a failed download
        raise UsageError(
            f"Cannot download the class names of ImageNet ({error}). Put imagenet_class_index.json into "
            "~/.keras/models, or pass labels."
        ) from error
    return named


def _read(labels: Labels) -> list[tuple[str, str]]:
    """Returns the identifier and the name of each class."""
    content: Any = labels
    if isinstance(labels, (str, os.PathLike)):
        path = pathlib.Path(labels)
        if not path.is_file():
            raise UsageError(f"labels is {str(path)!r}, but there is no such file. Pass a file or a list of names.")
        text = read_text(path)
        content = _parse_json(text, path) if path.suffix == ".json" else _lines(text)
    names = _in_order(content) if isinstance(content, dict) else [*enumerate(content)]
    if not names or not all(isinstance(name, str) and name.strip() for _, name in names):
        raise UsageError("labels must contain at least one class name, and every name must be a non-blank string.")
    return [(str(identifier), name.strip()) for identifier, name in names]


def _lines(text: str) -> list[str]:
    """Returns the lines of a text; unlike ``splitlines``, only line feeds end a line, as in the files of an export."""
    return text.removesuffix("\n").split("\n") if text else []


def _parse_json(text: str, path: pathlib.Path) -> Any:
    try:
        content = parse_json(text, object)
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, (list, dict)):
        raise UsageError(
            f"The top level of {path} is {type(content).__name__}, but must be a list of names, or an object like "
            '{"0": [identifier, name], ...}.'
        )
    return content


def _in_order(index: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Returns the identifiers and names in ``{"0": [identifier, name], ...}``, in the order of the numbers."""
    keys = [str(number) for number in range(len(index))]
    if {*keys} != {*index} or not all(isinstance(entry, list) and len(entry) == 2 for entry in index.values()):
        raise UsageError(
            f'The class index has {len(index)} entries, but not the keys "0" to "{len(index) - 1}", each with '
            "[identifier, name]. Correct the file, or pass a list of names."
        )
    return [(index[key][0], index[key][1]) for key in keys]
