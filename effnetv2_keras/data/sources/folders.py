"""The source ``folder``: one sub-folder of images per class."""

from __future__ import annotations

import pathlib

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.formats import IMAGE_SUFFIXES
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, FileSource
from effnetv2_keras.data.sources.listing import Listing, choose, file_source
from effnetv2_keras.data.sources.slices import parse_slice
from effnetv2_keras.data.sources.tfds import CARS_LAYOUT


def folder_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Returns the splits of a folder with a sub-folder per class.

    The classes are in the folder itself (flat), or in its folders ``train``, ``validation`` (or ``val``) and ``test``.
    A flat folder (or one with ``train`` only) is split by ``data.holdout``: in each class, that fraction of the files,
    chosen by a checksum of their names, is held out for evaluation. If there is a validation folder too,
    ``data.train_split=train[2%:]`` and ``data.eval_split=train[:2%]`` hold out files of ``train`` in the same way.

    Raises:
        DataAbsentError: if ``data.data_dir`` is not set.
        DataError: if the folder is missing or has no classes, a class is empty, a class to be split has only one
            image, or evaluation has classes that training does not have.
    """
    if not data.data_dir:
        layout = CARS_LAYOUT if data.tfds_name == "cars196" else "give --data_dir=FOLDER with one sub-folder per class."
        raise DataAbsentError(f"The folder source needs a folder: {layout}")
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder. Give the path of an existing folder.")
    train_name = parse_slice(data.train_split).name
    has_splits = (root / train_name).is_dir()

    def listing(name: str) -> Listing | None:
        folder = root / name if has_splits else root
        return _scan(folder) if folder.is_dir() and (has_splits or name == train_name) else None

    train, evaluation = choose(listing, data)
    return file_source(train, tuple(train)), file_source(evaluation, tuple(train))


def _scan(root: pathlib.Path) -> Listing:
    """Returns the image files below each class sub-folder, sorted."""
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {
        folder.name: sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        for folder in classes
    }
    if not found:
        raise DataError(
            f"{root} has no sub-folders. Put the images of each class into a sub-folder named after the class."
        )
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise DataError(
            f"There are no images ({', '.join(IMAGE_SUFFIXES)}) of {', '.join(map(repr, empty))} in {root}. "
            "Add images or remove the empty folder."
        )
    return found
