"""From class probabilities to names."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import tensorflow as tf

from effnetv2_keras.errors import UsageError

Labels = Union[str, "os.PathLike[str]", Sequence[str]]
Named = list[tuple[str, str, float]]


def decode_predictions(preds: Any, top: int = 5, labels: Labels | None = None) -> list[Named]:
    """Names the most likely classes of each image.

    Args:
        preds: scores, larger is likelier, ``[N, classes]``; an array or a tensor.
        top: how many to name, at least 1; more than there are gives all.
        labels: names in the order of the classes: a list of them; a text file with one a line; a JSON file with a list;
            or one like Keras' ``imagenet_class_index.json``, ``{"0": ["n01440764", "tench"], ...}``. None is ImageNet's
            1000, for which Keras downloads that file unless it is in ``~/.keras/models``.

    Returns:
        For each image ``(identifier, name, score)`` of its ``top`` classes, the likeliest first. Identifiers are
        ImageNet's, or the file's; of plain names, the number of the class.

    Raises:
        UsageError: if shape, ``top`` or labels cannot be used, or ImageNet's names cannot be had.
    """
    classes = None if labels is None else _read(labels)
    count = 1000 if classes is None else len(classes)
    scores = np.asarray(preds)
    if scores.ndim != 2 or scores.shape[1] != count:
        raise UsageError(f"preds has shape {scores.shape}; with {count} labels it must be (images, {count}).")
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1.")
    if classes is None:
        return _of_imagenet(scores, top)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*classes[index], row[index]) for index in likeliest] for row, likeliest in zip(scores, order)]


def _of_imagenet(scores: np.ndarray[Any, Any], top: int) -> list[Named]:
    try:
        named: list[Named] = tf.keras.applications.imagenet_utils.decode_predictions(scores, top=top)
    except Exception as error:  # what Keras raises for a failed download
        raise UsageError(
            f"ImageNet's class names cannot be had ({error}); put imagenet_class_index.json into ~/.keras/models, or "
            "pass labels."
        ) from error
    return named


def _read(labels: Labels) -> list[tuple[str, str]]:
    """Gives identifier and name of each class."""
    content: Any = labels
    if isinstance(labels, (str, os.PathLike)):
        path = pathlib.Path(labels)
        if not path.is_file():
            raise UsageError(f"labels is {str(path)!r}, which is no file; pass a file or a list of names.")
        text = path.read_text(encoding="utf-8")
        content = _parse_json(text, path) if path.suffix == ".json" else text.splitlines()
    names = _in_order(content) if isinstance(content, dict) else [*enumerate(content)]
    if not names or not all(isinstance(name, str) and name.strip() for _, name in names):
        raise UsageError("labels must name at least one class, each by a string that is not blank.")
    return [(str(identifier), name.strip()) for identifier, name in names]


def _parse_json(text: str, path: pathlib.Path) -> Any:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, (list, dict)):
        raise UsageError(f"{path} holds neither a list of names nor numbers with [identifier, name].")
    return content


def _in_order(index: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Reads ``{"0": [identifier, name], ...}``."""
    keys = [str(number) for number in range(len(index))]
    if {*keys} != {*index} or not all(isinstance(entry, list) and len(entry) == 2 for entry in index.values()):
        raise UsageError(
            f'A class index of {len(index)} classes has the keys "0" to "{len(index) - 1}", each with '
            "[identifier, name]; this one has not."
        )
    return [(index[key][0], index[key][1]) for key in keys]
