"""The file that names classes, and the vector that a record's labels become."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError

LABELS_FILE = "labels.txt"
"""One class a line, in label order."""


def read_labels(root: pathlib.Path) -> tuple[str, ...] | None:
    """Reads ``labels.txt`` of a folder; None if there is none.

    Raises:
        DataError: if a class is named twice.
    """
    path = root / LABELS_FILE
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{path} names {', '.join(map(repr, twice))} twice; each line must be another class.")
    return names


def class_names_of(root: pathlib.Path, num_classes: int | None) -> tuple[str, ...]:
    """Names the classes of data that only numbers them: by ``labels.txt``, or else "0", "1", ...

    Args:
        root: the folder of the data.
        num_classes: how many there are, if there is no ``labels.txt``.

    Raises:
        DataError: if neither tells how many there are.
    """
    names = read_labels(root)
    if names is None and num_classes is None:
        raise DataError(
            f"Records only number their classes. Write their names into {root / LABELS_FILE}, one a line, or give "
            "their number: --hparam_str=data.num_classes=1000"
        )
    return names or tuple(str(number) for number in range(num_classes or 0))


def label_vector(label: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Marks the labels of a record by ones.

    Args:
        label: int64, one label (a scalar) or any number of them ``[n]``, each in [0, num_classes).
        num_classes: length of the result.

    Returns:
        float32 ``[num_classes]``: one-hot, or multi-hot.
    """
    if label.shape.rank == 0:
        return tf.one_hot(label, num_classes)
    return tf.tensor_scatter_nd_max(tf.zeros([num_classes]), label[:, tf.newaxis], tf.ones_like(label, tf.float32))
