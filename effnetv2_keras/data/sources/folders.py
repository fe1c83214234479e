"""The source ``folder``: one sub-folder of images per class."""

from __future__ import annotations

import pathlib

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.formats import IMAGE_SUFFIXES
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, FileSource
from effnetv2_keras.data.sources.division import Listing
from effnetv2_keras.data.sources.folder_layout import find_split_folders
from effnetv2_keras.data.sources.groups import group_reader
from effnetv2_keras.data.sources.listing import choose, file_source
from effnetv2_keras.data.sources.nesting import check_nesting
from effnetv2_keras.data.sources.tfds import CARS_LAYOUT
from effnetv2_keras.data.sources.walking import (
    Found,
    describe,
    find_image_files,
    report_left_out,
    sub_folders,
)


def folder_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Returns the splits of a folder with a sub-folder per class.

    The classes are in the folder itself (flat), or in its folders ``train``, ``validation`` and ``test`` in any usual
    spelling; see ``folder_layout`` and ``split_names``. Evaluation uses validation, or else test. A flat folder (or one
    with ``train`` only) is split by ``data.holdout``: in each class, that fraction of the files, chosen by a checksum
    of their names, is held out for evaluation. If there is a validation folder too, ``data.train_split=train[2%:]`` and
    ``data.eval_split=train[:2%]`` hold out files of ``train`` in the same way. ``data.group_by`` keeps images that
    belong together in one split, and ``data.folds`` divides the images for cross-validation.

    Raises:
        DataAbsentError: if ``data.data_dir`` is not set.
        DataError: if the folder is missing or has no classes, it is not certain which folders are splits, a class is
            empty or its images are mostly of a kind that cannot be decoded, a link is broken, a class has too few
            images or groups to be divided, an image has no group, a group is in two splits, or evaluation has classes
            that training does not have.
    """
    if not data.data_dir:
        layout = CARS_LAYOUT if data.tfds_name == "cars196" else "give --data_dir=FOLDER with one sub-folder per class."
        raise DataAbsentError(f"The folder source needs a folder: {layout}")
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder. Give the path of an existing folder.")
    layout_of = find_split_folders(root, data)
    skip = data.unreadable == "skip"
    folders = layout_of.folders if layout_of else None
    group_of = group_reader(data.group_by, root) if data.group_by else None
    groups: dict[str, str] = {}

    def read(name: str) -> Listing:
        top = folders[name] if folders else root
        files = _scan(top, skip=skip, whole=not folders)
        if group_of:
            groups.update((path, group_of(path, str(top / label))) for label in files for path in files[label])
        return files

    train, evaluation = choose(
        folders, read, data, unlabeled=layout_of.unlabeled if layout_of else (),
        groups=groups if group_of else None,
    )  # fmt: skip
    return file_source(train, tuple(train), root=root), file_source(evaluation, tuple(train), root=root)


def _scan(root: pathlib.Path, *, skip: bool, whole: bool = False) -> Listing:
    """Returns the image files below each class sub-folder, sorted; ``whole`` if ``root`` is the folder of the data."""
    here = Found()
    found = {name: find_image_files(root / name) for name in sub_folders(root, here)}
    if not found:
        raise DataError(
            f"{root} has no sub-folders. Put the images of each class into a sub-folder named after the class."
        )
    report_left_out(root, found, here, skip=skip)
    check_nesting(root, found, whole=whole)
    empty = [name for name, files in found.items() if not files.images]
    if empty:
        left_out = describe(found[name].left_out for name in empty)
        raise DataError(
            f"There are no images ({', '.join(IMAGE_SUFFIXES)}) of {', '.join(map(repr, empty))} in {root}"
            + (f", only {left_out}. " if left_out else ". ")
            + f"Add images or remove the {'' if left_out else 'empty '}folder."
        )
    return {name: files.images for name, files in found.items()}
