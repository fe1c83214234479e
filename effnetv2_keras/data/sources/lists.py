"""The source ``csv``: lists of image files with labels."""

from __future__ import annotations

import csv
import os
import pathlib

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, FileSource
from effnetv2_keras.data.sources.labels import read_labels
from effnetv2_keras.data.sources.listing import Listing, choose, file_source, labels_of
from effnetv2_keras.data.sources.walking import is_leftover


def csv_splits(data: config_lib.DataConfig) -> tuple[FileSource, FileSource]:
    """Returns the splits listed in ``train.csv`` and ``validation.csv``, or in one file.

    ``data.data_dir`` is the folder of the lists, or one ``.csv`` file. A list has the header ``path,label`` and one row
    per image; the columns may be in any order. A path is absolute, or relative to the folder of the list. With
    ``data.multi_label``, the label column holds any number of labels, separated by ``data.label_separator``. Classes
    are sorted by label, with whole numbers first and by value. A file ``labels.txt`` in the folder, with one label per
    line, defines another order. The names of the lists and the images that are held out follow the rules of
    ``folder_splits``.

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

    folder = root.parent if root.is_file() else root
    separator = data.label_separator if data.multi_label else None
    lists = None if root.is_file() else {path.stem: path for path in sorted(root.iterdir()) if _is_list(path)}
    train, evaluation = choose(lists, lambda name: _read_csv(root if lists is None else lists[name], data), data)
    labels = {label for written in train for label in labels_of(written, separator)}
    class_names = read_labels(folder) or tuple(sorted(labels, key=_natural))
    return (
        file_source(train, class_names, separator, root=folder),
        file_source(evaluation, class_names, separator, root=folder),
    )


def _is_list(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".csv" and path.is_file() and not is_leftover(path.name)


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


def _natural(label: str) -> tuple[bool, int, str]:
    """Returns a sort key that puts whole numbers first, ordered by value."""
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label
