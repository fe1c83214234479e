"""Sources of image files: folders of classes (``folder``), and lists of files with labels (``csv``)."""

from __future__ import annotations

import csv
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Callable

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, FileSource
from effnetv2_keras.data.sources.labels import read_labels
from effnetv2_keras.data.sources.slices import Slice, parse_slice
from effnetv2_keras.data.sources.tfds import CARS_LAYOUT, EVAL_SPLITS

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")

Listing = dict[str, list[str]]
"""Paths of image files by label; for multi-label data, by the labels as written in the list."""


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

    train, evaluation = _choose(listing, data)
    return _file_source(train, tuple(train)), _file_source(evaluation, tuple(train))


def csv_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Returns the splits listed in ``train.csv`` and ``validation.csv`` (or ``val.csv``, ``test.csv``), or in one file.

    ``data.data_dir`` is the folder of the lists, or one ``.csv`` file. A list has the header ``path,label`` and one row
    per image; the columns may be in any order. A path is absolute, or relative to the folder of the list. With
    ``data.multi_label``, the label column holds any number of labels, separated by ``data.label_separator``. Classes
    are sorted by label, with whole numbers first and by value. A file ``labels.txt`` in the folder, with one label per
    line, defines another order. Images are held out by the rules of ``folder_splits``.

    Raises:
        DataAbsentError: if ``data.data_dir`` is not set.
        DataError: if a list, a column or an image is missing, an image is listed twice, a row has no label, or
            evaluation has labels that training does not have.
    """
    if not data.data_dir:
        raise DataAbsentError("The csv source needs --data_dir=FOLDER with train.csv, or --data_dir=LIST.csv.")
    root = pathlib.Path(data.data_dir)
    if not root.exists():
        raise DataError(
            f"--data_dir={data.data_dir}: there is no such folder or file. Give a folder with train.csv or a .csv file."
        )

    train_name, folder = parse_slice(data.train_split).name, root.parent if root.is_file() else root
    separator = data.label_separator if data.multi_label else None

    def listing(name: str) -> Listing | None:
        path = folder / f"{name}.csv" if root.is_dir() else root
        return _read_csv(path, data) if path.is_file() and (root.is_dir() or name == train_name) else None

    train, evaluation = _choose(listing, data)
    labels = {label for written in train for label in _labels_of(written, separator)}
    class_names = read_labels(folder) or tuple(sorted(labels, key=_natural))
    return _file_source(train, class_names, separator), _file_source(evaluation, class_names, separator)


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


def _read_csv(path: pathlib.Path, data: config_lib.DataConfig) -> Listing:
    """Reads a list of image files; raises ``DataError`` if it is incomplete or a file is missing."""
    path_key, label_key = data.image_key or "path", data.label_key or "label"
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = {path_key, label_key} - set(rows.fieldnames or ())
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(map(repr, sorted(missing)))}. The columns in its first line are: "
                f"{', '.join(rows.fieldnames or ()) or 'none'}. Add the first line {path_key},{label_key}, or set "
                "data.image_key and data.label_key to the names of the columns."
            )
        found: Listing = {}
        seen: set[str] = set()
        for row in rows:
            name, label = str(path.parent / (row[path_key] or "").strip()), (row[label_key] or "").strip()
            where = f"{path}, line {rows.line_num}: "
            if not os.path.isfile(name):
                raise DataError(f"{where}there is no file {name}. Paths are relative to the folder of the list.")
            if name in seen:
                raise DataError(
                    f"{where}{name} is listed twice. List each image once. If it has several labels, write them in one "
                    f"row, separated by {data.label_separator!r}, and set data.multi_label=true."
                )
            if not label and not data.multi_label:
                raise DataError(f"{where}{name} has no label. Give it one, or remove the row.")
            seen.add(name)
            found.setdefault(label, []).append(name)
    return {label: sorted(found[label]) for label in sorted(found)}


def _choose(listing: Callable[[str], Listing | None], data: config_lib.DataConfig) -> tuple[Listing, Listing]:
    """Returns the training files and the evaluation files by label; training has every label of its folder or list.

    Args:
        listing: maps the name of a split to its files, or to None if the split does not exist.
        data: the data settings.
    """
    train_part = parse_slice(data.train_split)
    every = listing(train_part.name)
    if every is None:
        raise DataError(
            f"There is no {_place(data, train_part)}, the split that data.train_split names. Create it, or set "
            "data.train_split to an existing split."
        )
    eval_parts = [parse_slice(name) for name in ([data.eval_split] if data.eval_split else EVAL_SPLITS)]
    for part in eval_parts:
        found = every if part.name == train_part.name else listing(part.name)
        if found is not None:
            return _share(every, train_part), _share(found, part)
    if data.eval_split:
        raise DataError(
            f"There is no {_place(data, eval_parts[0])}, the split that data.eval_split names. Create it, or set "
            "data.eval_split to an existing split."
        )
    return _hold_out(_share(every, train_part), data)


def _place(data: config_lib.DataConfig, part: Slice) -> str:
    """Returns where a split should be, for an error message."""
    if data.source == "csv":
        return f"list {data.data_dir}/{part.name}.csv"
    return f"folder {data.data_dir}/{part.name}"


def _share(files: Listing, part: Slice) -> Listing:
    """Returns the same share of the files of each label, chosen by rank."""
    return {label: sorted(part.of(_ranked(paths))) for label, paths in files.items()}


def _ranked(paths: Sequence[str]) -> list[str]:
    """Sorts files by a checksum of their names, so that new files do not change the order of the others."""
    return sorted(paths, key=lambda path: (zlib.crc32(os.path.basename(path).encode()), path))


def _hold_out(files: Listing, data: config_lib.DataConfig) -> tuple[Listing, Listing]:
    """Splits each label's files: holds out the fraction ``data.holdout``, at least one file, for evaluation."""
    held_out = {
        label: set(_ranked(paths)[: max(1, round(data.holdout * len(paths)))]) for label, paths in files.items()
    }
    train = {label: [path for path in paths if path not in held_out[label]] for label, paths in files.items()}
    single = [] if data.multi_label else [label for label, paths in train.items() if not paths]
    if single:
        raise DataError(
            f"Class {', '.join(map(repr, single))} has only one image, so none can be held out. Add images, or create "
            f"train and validation splits in {data.data_dir}."
        )
    return train, {label: [path for path in paths if path in held_out[label]] for label, paths in files.items()}


def _file_source(files: Listing, class_names: tuple[str, ...], separator: str | None = None) -> FileSource:
    """Builds the source; it is multi-label if there is a separator."""
    used = {label for written, paths in files.items() if paths for label in _labels_of(written, separator)}
    unknown = sorted(used - set(class_names))
    if unknown:
        raise DataError(
            f"Evaluation has images of {', '.join(map(repr, unknown))}, which training does not have. The classes of "
            f"training are {', '.join(class_names)}. Rename or remove the evaluation class, or add training images of "
            "it."
        )
    number = {name: label for label, name in enumerate(class_names)}
    pairs = [
        (path, [number[label] for label in _labels_of(written, separator)])
        for written, paths in files.items()
        for path in paths
    ]
    paths, labels = [path for path, _ in pairs], [row for _, row in pairs]
    if separator:
        return FileSource(paths, labels, class_names)
    return FileSource(paths, [row[0] for row in labels], class_names)


def _labels_of(written: str, separator: str | None) -> list[str]:
    """Splits the labels of an image at the separator, and drops empty ones."""
    return [label.strip() for label in written.split(separator) if label.strip()] if separator else [written]


def _natural(label: str) -> tuple[bool, int, str]:
    """Returns a sort key that puts whole numbers first, ordered by value."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label
