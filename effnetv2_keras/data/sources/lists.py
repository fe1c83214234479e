"""The source ``csv``: lists of image files with labels."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, FileSource
from effnetv2_keras.data.sources.columns import (
    NoLabelError,
    find_columns,
    find_group_column,
    known_names,
    warn_of_splits,
)
from effnetv2_keras.data.sources.division import Listing, labels_of
from effnetv2_keras.data.sources.groups import Groups, group_reader
from effnetv2_keras.data.sources.label_cells import warn_of_separators, written_labels
from effnetv2_keras.data.sources.labels import LABELS_FILE, read_labels
from effnetv2_keras.data.sources.listed_files import advise, find_listed
from effnetv2_keras.data.sources.listing import choose, file_source
from effnetv2_keras.data.sources.slices import parse_slice
from effnetv2_keras.data.sources.split_names import TEST, TRAIN, role_of
from effnetv2_keras.data.sources.tables import Table, read_table
from effnetv2_keras.data.sources.walking import is_leftover
from effnetv2_keras.errors import UsageError

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
"""Suffixes of the lists in a folder; the training list decides for the others."""


@dataclasses.dataclass(frozen=True)
class ImageList:
    """The content of one list.

    Attributes:
        files: image files by label.
        class_names: if each class has a column of 0 and 1, the classes in the order of the columns; otherwise empty.
        groups: with ``data.group_by``, the group of each file.
    """

    files: Listing
    class_names: tuple[str, ...]
    groups: Groups


def csv_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Returns the splits listed in ``train.csv`` and ``validation.csv``, or in one list.

    ``data.data_dir`` is the folder of the lists, or one list. A list has a heading such as ``path,label`` and one row
    per image; commas, semicolons, tabs or bars separate the cells. The columns may be in any order and have other
    usual names (``columns.IMAGE_NAMES``, ``LABEL_NAMES``), or those of ``data.image_key`` and ``data.label_key``. The
    log tells which were taken. A path is absolute, or relative to the folder of the list; ``data.path_template`` makes
    paths of names. Instead of a label column there may be one column of 0 and 1 per class.

    With ``data.multi_label``, the label column holds any number of labels, separated by ``data.label_separator``, or a
    list such as ``['a', 'b']``. Classes are sorted by label, with whole numbers first and by value, or have the order
    of their columns. A file ``labels.txt`` in the folder, with one label per line, defines another order. The names
    of the lists and the images that are held out follow the rules of ``folder_splits``. ``data.group_by`` may also
    name a column.

    Raises:
        DataAbsentError: if ``data.data_dir`` is not set.
        DataError: if a list, a column or an image is missing, an image is listed twice, a row has no label, or
            evaluation has labels that training does not have.
        UsageError: if a list is not text.
    """
    if not data.data_dir:
        raise DataAbsentError("The csv source needs --data_dir=FOLDER with train.csv, or --data_dir=LIST.csv.")
    root = pathlib.Path(data.data_dir)
    if not root.exists():
        raise DataError(
            f"--data_dir={data.data_dir}: there is no such folder or file. Give a folder with train.csv or a .csv file."
        )

    folder = root.parent if root.is_file() else root
    separator = data.label_separator if data.multi_label else None
    lists = None if root.is_file() else _lists_in(folder, parse_slice(data.train_split).name)
    read: list[ImageList] = []
    groups: dict[str, str] = {}

    def listing(name: str) -> Listing:
        read.append(_read_list(root if lists is None else lists[name], data))
        groups.update(read[-1].groups)
        return read[-1].files

    train, evaluation = choose(
        lists, listing, data, unlabeled=_unlabeled(lists or {}, data), groups=groups if data.group_by else None
    )
    class_names = _class_names(folder, train, read, separator)
    return (
        file_source(train, class_names, separator, root=folder),
        file_source(evaluation, class_names, separator, root=folder),
    )


def _lists_in(folder: pathlib.Path, train_name: str) -> dict[str, pathlib.Path]:
    """Returns the lists in a folder by name; all have the suffix of the training list."""
    every = [path for path in sorted(folder.iterdir()) if path.is_file() and not is_leftover(path.name)]
    training = {path.suffix.lower() for path in every if path.stem == train_name or role_of(path.stem) == TRAIN}
    suffix = next((suffix for suffix in LIST_SUFFIXES if suffix in training), LIST_SUFFIXES[0])
    return {path.stem: path for path in every if path.suffix.lower() == suffix and path.name != LABELS_FILE}


def _unlabeled(lists: Mapping[str, pathlib.Path], data: config_lib.DataConfig) -> list[str]:
    """Returns the lists for testing that have no column of labels, as in competitions, and warns about them."""
    found = []
    for name, path in lists.items():
        if not data.eval_split and role_of(name) == TEST and not _has_labels(path, data):
            logging.warning("%s has no column of labels and is left out.", path)
            found.append(name)
    return found


def _has_labels(path: pathlib.Path, data: config_lib.DataConfig) -> bool:
    """Returns whether a list has a column of labels, or something else is wrong with it."""
    try:
        table = _table(path, data)
    except UsageError:  # it is raised again if the list is used
        return True
    try:
        find_columns(table, data.image_key, data.label_key, multi_label=data.multi_label)
    except NoLabelError:
        return False
    except DataError:
        return sum(map(bool, table.heading)) != 1
    return True


def _table(path: pathlib.Path, data: config_lib.DataConfig) -> Table:
    return read_table(
        path,
        lambda heading: known_names(heading, data.image_key, data.group_by, *(data.label_key or "").split("|")),
        joins_last=data.label_separator if data.multi_label else None,
    )


def _read_list(path: pathlib.Path, data: config_lib.DataConfig) -> ImageList:
    """Reads a list of image files; raises ``DataError`` if it is incomplete or a file is missing."""
    table = _table(path, data)
    group = find_group_column(table, data.group_by) if data.group_by else None
    columns = find_columns(table, data.image_key, data.label_key, multi_label=data.multi_label, group=group)
    group_of = group_reader(data.group_by, path.parent, table.heading) if data.group_by and group is None else None
    logging.info("%s: %s, %s.", path, table.format(), columns.describe(table.heading))
    if not table.rows:
        raise DataError(f"There are no images in {path}, only a heading. Add one row per image.")
    warn_of_splits(table, columns)
    found: Listing = {}
    seen: set[str] = set()
    groups: dict[str, str] = {}
    missing: list[tuple[str, str, str]] = []
    for row in table.rows:
        where, cell = f"{path}, line {row.line}: ", row.cells[columns.image]
        if not cell or "\n" in cell:
            raise DataError(
                f"{where}{cell[:40]!r} is no path of an image. Correct or remove the row; perhaps a quotation mark is "
                "missing."
            )
        written = data.path_template.replace("{}", cell) if data.path_template else cell
        name = find_listed(path.parent, written, table.encoding)
        if name is None:
            missing.append((where, str(path.parent / written), cell))
            continue
        if name in seen:
            raise DataError(
                f"{where}{printable(name)} is listed twice. List each image once. If it has several labels, write them "
                f"in one row, separated by {data.label_separator!r}, and set data.multi_label=true."
            )
        seen.add(name)
        if data.group_by:
            groups[name] = group_of(name, str(path.parent)) if group_of else row.cells[group or 0]
        found.setdefault(written_labels(row, columns, data, where + printable(name)), []).append(name)
    if missing:
        where, name, cell = missing[0]
        others = f" (and {len(missing) - 1} more of {len(table.rows)})" if len(missing) > 1 else ""
        cells = [row.cells[columns.image] for row in table.rows]
        advice = advise(path.parent, cell, data.path_template, cells)
        raise DataError(f"{where}there is no file {name}{others}. {advice}")
    if columns.label is not None:
        warn_of_separators(found, data, str(path))
    classes = tuple(name for _, name in columns.classes)
    return ImageList({label: sorted(found[label]) for label in sorted(found)}, classes, groups)


def _class_names(
    folder: pathlib.Path, train: Listing, lists: Sequence[ImageList], separator: str | None
) -> tuple[str, ...]:
    """Returns the class names: those of ``labels.txt``, the columns of the classes, or the labels of training.

    Args:
        folder: folder of the lists.
        train: the training files.
        lists: all lists that were read, that of training first.
        separator: separator of labels; None if an image has one.
    """
    named = read_labels(folder)
    if not named:
        labels = {label for written in train for label in labels_of(written, separator)}
        return lists[0].class_names or tuple(sorted(labels, key=_natural))
    used = collections.Counter(
        label
        for every in lists
        for written, paths in every.files.items()
        for label in labels_of(written, separator)
        for _ in paths
    )
    lacking = sorted(set(used) - set(named), key=_natural)
    if lacking:
        raise DataError(
            f"{folder / LABELS_FILE} lacks {', '.join(map(repr, lacking))}, the label of "
            f"{sum(used[label] for label in lacking)} images. It names {len(named)} classes: {', '.join(named[:10])}"
            f"{' ...' if len(named) > 10 else ''}. Add a line for each, or remove the file to sort the labels instead."
        )
    return named


def _natural(label: str) -> tuple[bool, int, str]:
    """Returns a sort key that puts whole numbers first, ordered by value."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label
