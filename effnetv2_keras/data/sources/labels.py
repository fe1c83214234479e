"""Reads ``labels.txt``, which names the classes; checks labels, and encodes them as one-hot or multi-hot vectors."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.basics.text_files import read_text
from effnetv2_keras.errors import DataError

LABELS_FILE = "labels.txt"
"""File in the data folder with one class name per line, in label order."""


def read_labels(root: pathlib.Path) -> tuple[str, ...] | None:
    """Returns the class names in the ``labels.txt`` of a folder, or None if there is no such file.

    Raises:
        DataError: if a class name appears twice.
        UsageError: if the file is not text.
    """
    path = root / LABELS_FILE
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(
            f"{path} contains {', '.join(map(repr, twice))} more than once. Each line must name a different class; "
            "remove the duplicates."
        )
    return names


def class_names_of(root: pathlib.Path, num_classes: int | None) -> tuple[str, ...]:
    """Returns class names for data with numbered classes: those in ``labels.txt``, or else "0", "1", and so on.

    Args:
        root: the folder of the data.
        num_classes: number of classes, needed if there is no ``labels.txt``.

    Raises:
        DataError: if there is no ``labels.txt`` and no ``num_classes``.
    """
    names = read_labels(root)
    if names is None and num_classes is None:
        raise DataError(
            "The number of classes is not known, because records contain only class numbers. Write the class names "
            f"into {root / LABELS_FILE}, one per line, or set their number: --hparam_str=data.num_classes=1000"
        )
    return names or tuple(str(number) for number in range(num_classes or 0))


def label_vector(label: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns the labels of a record as a one-hot or multi-hot vector.

    Args:
        label: int64 in [0, num_classes): one label (a scalar), or any number of labels, ``[n]``.
        num_classes: length of the result.

    Returns:
        float32 ``[num_classes]``: one-hot for a scalar, multi-hot for ``[n]``.
    """
    if label.shape.rank == 0:
        return tf.one_hot(label, num_classes)
    return tf.tensor_scatter_nd_max(tf.zeros([num_classes]), label[:, tf.newaxis], tf.ones_like(label, tf.float32))


def check_labels(labels: npt.NDArray[Any], class_names: Sequence[str]) -> None:
    """Raises ``DataError`` unless there are labels and all lie in [0, classes)."""
    if not len(labels):
        raise DataError("There are no images with a label.")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(
            f"Labels go from {labels.min()} to {labels.max()}, but the labels of {len(class_names)} classes must be 0 "
            f"to {len(class_names) - 1}."
        )
