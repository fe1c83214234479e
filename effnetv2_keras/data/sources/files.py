"""Image files: folders of classes, and lists of files with their labels."""

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
"""Paths of image files by label; by labels, as they are written, where an image may have several."""


def folder_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """A folder of class sub-folders, flat or under ``train``, ``validation`` (or ``val``) and ``test``.

    A flat folder (or one with ``train`` only) is split by ``data.holdout``: in each class, that share of the files,
    chosen by a checksum of their names, is held out for evaluation. ``data.train_split=train[2%:]`` and
    ``data.eval_split=train[:2%]`` do the same where there is a validation folder too.

    Raises:
        DataError: if the folder is missing, has no classes, an empty class, a class of one image that would have to
            be both trained on and held out, or evaluation classes that training lacks.
    """
    if not data.data_dir:
        layout = CARS_LAYOUT if data.tfds_name == "cars196" else "give --data_dir=FOLDER with one sub-folder per class."
        raise DataAbsentError(f"The folder source needs a folder: {layout}")
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder.")
    train_name = parse_slice(data.train_split).name
    has_splits = (root / train_name).is_dir()

    def listing(name: str) -> Listing | None:
        folder = root / name if has_splits else root
        return _scan(folder) if folder.is_dir() and (has_splits or name == train_name) else None

    train, evaluation = _choose(listing, data)
    return _file_source(train, tuple(train)), _file_source(evaluation, tuple(train))


def csv_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Lists ``train.csv`` and ``validation.csv`` (or ``val.csv``, ``test.csv``) in a folder, or one ``.csv`` file.

    Each has a heading ``path,label`` and a row for each image, in any order of columns; a path is relative to the
    list's folder, or absolute. With ``data.multi_label``, the label column holds any number of labels, separated by
    ``data.label_separator``. Labels are sorted, whole numbers by value; ``labels.txt`` in the folder, one a line, gives
    another order. What is held out follows the rules of ``folder_splits``.

    Raises:
        DataError: if a list, a column or an image is missing, an image is listed twice, a row has no label, or
            evaluation has labels that training lacks.
    """
    if not data.data_dir:
        raise DataAbsentError("The csv source needs --data_dir=FOLDER with train.csv, or --data_dir=LIST.csv.")
    root = pathlib.Path(data.data_dir)
    if not root.exists():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder or file.")

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
    """Finds the image files below each class sub-folder, sorted."""
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


def _read_csv(path: pathlib.Path, data: config_lib.DataConfig) -> Listing:
    """Reads a list of files, and makes sure that they are there."""
    path_key, label_key = data.image_key or "path", data.label_key or "label"
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = {path_key, label_key} - set(rows.fieldnames or ())
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(map(repr, sorted(missing)))}; its first line names "
                f"{', '.join(rows.fieldnames or ()) or 'none'}. Begin it with the line {path_key},{label_key}, or name "
                "the columns with data.image_key and data.label_key."
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
                    f"{where}{name} is listed twice. Name each image once; several labels stand in one row, separated "
                    f"by {data.label_separator!r}, with data.multi_label=true."
                )
            if not label and not data.multi_label:
                raise DataError(f"{where}{name} has no label. Give it one, or remove the row.")
            seen.add(name)
            found.setdefault(label, []).append(name)
    return {label: sorted(found[label]) for label in sorted(found)}


def _choose(listing: Callable[[str], Listing | None], data: config_lib.DataConfig) -> tuple[Listing, Listing]:
    """Finds the files to train on, by every label that there is, and those to evaluate on.

    Args:
        listing: from the name of a split to its files, or None if there is no such split.
        data: names the splits and their place.
    """
    train_part = parse_slice(data.train_split)
    every = listing(train_part.name)
    if every is None:
        raise DataError(f"There is no {_place(data, train_part)}, the split that data.train_split names.")
    eval_parts = [parse_slice(name) for name in ([data.eval_split] if data.eval_split else EVAL_SPLITS)]
    for part in eval_parts:
        found = every if part.name == train_part.name else listing(part.name)
        if found is not None:
            return _share(every, train_part), _share(found, part)
    if data.eval_split:
        raise DataError(f"There is no {_place(data, eval_parts[0])}, the split that data.eval_split names.")
    return _hold_out(_share(every, train_part), data)


def _place(data: config_lib.DataConfig, part: Slice) -> str:
    """Where a split should be."""
    if data.source == "csv":
        return f"list {data.data_dir}/{part.name}.csv"
    return f"folder {data.data_dir}/{part.name}"


def _share(files: Listing, part: Slice) -> Listing:
    """The same share of each label's files, chosen by rank."""
    return {label: sorted(part.of(_ranked(paths))) for label, paths in files.items()}


def _ranked(paths: Sequence[str]) -> list[str]:
    """Puts files in an order that new ones do not upset: by a checksum of their names."""
    return sorted(paths, key=lambda path: (zlib.crc32(os.path.basename(path).encode()), path))


def _hold_out(files: Listing, data: config_lib.DataConfig) -> tuple[Listing, Listing]:
    """Takes ``data.holdout`` of each label's files, at least one, away from training."""
    held_out = {
        label: set(_ranked(paths)[: max(1, round(data.holdout * len(paths)))]) for label, paths in files.items()
    }
    train = {label: [path for path in paths if path not in held_out[label]] for label, paths in files.items()}
    single = [] if data.multi_label else [label for label, paths in train.items() if not paths]
    if single:
        raise DataError(
            f"Class {', '.join(map(repr, single))} has one image only, so none can be held out. Add images, or make "
            f"train and validation splits in {data.data_dir}."
        )
    return train, {label: [path for path in paths if path in held_out[label]] for label, paths in files.items()}


def _file_source(files: Listing, class_names: tuple[str, ...], separator: str | None = None) -> FileSource:
    """Makes the source; with a separator, a multi-label one."""
    used = {label for written, paths in files.items() if paths for label in _labels_of(written, separator)}
    unknown = sorted(used - set(class_names))
    if unknown:
        raise DataError(
            f"Evaluation has images of {', '.join(map(repr, unknown))}, which training does not know; it knows "
            f"{', '.join(class_names)}. Rename or remove the folder, or add training images of it."
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
    """Splits labels, and drops those that are empty."""
    return [label.strip() for label in written.split(separator) if label.strip()] if separator else [written]


def _natural(label: str) -> tuple[bool, int, str]:
    """Sorts whole numbers by value, before all else."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label
