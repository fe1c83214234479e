"""From lists of image files by label to the two sources of a run: chooses the splits, and holds out images."""

from __future__ import annotations

import os
import unicodedata
import zlib
from collections.abc import Collection, Sequence
from typing import Callable

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.exact import exact
from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.data.sources.base import DataError, FileSource
from effnetv2_keras.data.sources.slices import Slice, parse_slice
from effnetv2_keras.data.sources.split_names import announce, find_evaluation, find_train

Listing = dict[str, list[str]]
"""Paths of image files by label; for multi-label data, by the labels as written in the list."""


def choose(
    names: Collection[str] | None,
    read: Callable[[str], Listing],
    data: config_lib.DataConfig,
    *,
    unlabeled: Collection[str] = (),
) -> tuple[Listing, Listing]:
    """Returns the training files and the evaluation files by label; training has every label of its folder or list.

    Args:
        names: the splits that exist; None if the data is not divided into splits.
        read: returns the files of a split; of all the data if it is not divided.
        data: the data settings.
        unlabeled: names of splits that are used only if ``data.eval_split`` names them.
    """
    train_part = parse_slice(data.train_split)
    prefer_plain, place = data.source == "csv", str(data.data_dir)
    name = train_part.name if names is None else find_train(names, data, place, prefer_plain=prefer_plain)
    if name is None:
        raise DataError(_missing(data, "data.train_split", train_part, names))
    every = read(name)
    train = _share(every, train_part)
    _check_trained(every, train, f"data.train_split={data.train_split}", data)
    if data.eval_split:
        part = parse_slice(data.eval_split)
        same = part.name in (name, train_part.name)
        if not same and part.name not in (names or ()):
            raise DataError(_missing(data, "data.eval_split", part, names))
        _announce(names, place, name, name if same else part.name, chosen=True)
        whole = every if same else read(part.name)
        evaluation = _share(whole, part)
        _warn_of_empty(whole, evaluation, data.eval_split)
        return train, evaluation
    found = find_evaluation(names or (), place, exclude={name, *unlabeled}, prefer_plain=prefer_plain)
    _announce(names, place, name, found, chosen=False)
    if found:
        return train, read(found)
    kept, held_out = _hold_out(train, data)
    _check_trained(train, kept, f"data.holdout={data.holdout:g}", data)
    return kept, held_out


def _announce(names: Collection[str] | None, place: str, train: str, evaluation: str | None, *, chosen: bool) -> None:
    if names is not None:
        announce(place, names, train, evaluation, chosen=chosen)


def _missing(data: config_lib.DataConfig, setting: str, part: Slice, names: Collection[str] | None) -> str:
    """Returns the error message for a split that does not exist."""
    where = f"list {data.data_dir}/{part.name}.csv" if data.source == "csv" else f"folder {data.data_dir}/{part.name}"
    listed = f" There are {', '.join(map(repr, sorted(names)))}." if names else ""
    advice = f"Create it, or set {setting} to an existing split."
    return f"There is no {where}, the split that {setting} names.{listed} {advice}"


def _share(files: Listing, part: Slice) -> Listing:
    """Returns the same share of the files of each label, chosen by rank."""
    return {label: sorted(part.of(_ranked(paths))) for label, paths in files.items()}


def _check_trained(whole: Listing, part: Listing, setting: str, data: config_lib.DataConfig) -> None:
    """Raises ``DataError`` if a label of the data has no image in the part that is trained on."""
    separator = data.label_separator if data.multi_label else None
    before, after = (
        {label: written for written, paths in files.items() if paths for label in labels_of(written, separator)}
        for files in (whole, part)
    )
    lost = sorted(set(before) - set(after))
    if lost:
        raise DataError(
            f"With {setting}, no training image is left of {_listed(lost)}. For example, {lost[0]!r} has "
            f"{len(whole[before[lost[0]]])} in all. Use a larger share of the data for training, add images of these "
            "classes, or remove the classes."
        )


def _warn_of_empty(whole: Listing, part: Listing, split: str) -> None:
    """Warns if a share has no image of a class."""
    lost = sorted(label for label, paths in whole.items() if paths and not part[label])
    if lost:
        logging.warning("data.eval_split=%s has no image of %s. They are not evaluated.", split, _listed(lost))


def _listed(labels: Sequence[str]) -> str:
    """Returns the first labels, and how many more there are."""
    shown = ", ".join(map(repr, labels[:10]))
    return f"{shown} and {len(labels) - 10} more classes" if len(labels) > 10 else shown


def _ranked(paths: Sequence[str]) -> list[str]:
    """Sorts files by a checksum of their names, so that new files do not change the order of the others."""
    return sorted(paths, key=lambda path: (zlib.crc32(os.fsencode(os.path.basename(path))), path))


def _hold_out(files: Listing, data: config_lib.DataConfig) -> tuple[Listing, Listing]:
    """Splits each label's files: holds out the fraction ``data.holdout``, at least one file, for evaluation."""
    held_out = {label: set(_ranked(paths)[: _num_held_out(len(paths), data)]) for label, paths in files.items()}
    train = {label: [path for path in paths if path not in held_out[label]] for label, paths in files.items()}
    single = [] if data.multi_label else [label for label, paths in train.items() if not paths]
    if single:
        raise DataError(
            f"Class {', '.join(map(repr, single))} has only one image, so none can be held out. Add images, or create "
            f"train and validation splits in {data.data_dir}."
        )
    return train, {label: [path for path in paths if path in held_out[label]] for label, paths in files.items()}


def _num_held_out(count: int, data: config_lib.DataConfig) -> int:
    """Returns how many of ``count`` images of a label are held out; one at least stays, if there are several."""
    wanted = max(1, round(exact(data.holdout) * count))
    return wanted if count < 2 or data.multi_label else min(wanted, count - 1)


def file_source(
    files: Listing, class_names: tuple[str, ...], separator: str | None = None, *, root: str | os.PathLike[str] = ""
) -> FileSource:
    """Builds the source; it is multi-label if there is a separator.

    Names that are not UTF-8, as old archives give them to folders, become names that can be printed and saved.

    Args:
        files: the files by label.
        class_names: the classes, in label order.
        separator: separator of the labels of an image; None if each has one.
        root: the folder of the data.
    """
    renamed = {label: printable(label) for label in {*files, *class_names} if printable(label) != label}
    if renamed:
        logging.warning(
            "The names of %d classes are not UTF-8. They are read as Windows-1252, which gives %s. If that is wrong, "
            "rename the folders.", len(renamed), ", ".join(sorted(renamed.values())),
        )  # fmt: skip
        class_names = tuple(map(printable, class_names))
        same = sorted({name for name in class_names if class_names.count(name) > 1})
        if same:
            raise DataError(
                f"Several folders have the class name {', '.join(same)} in different bytes. Put their images into one "
                "folder."
            )
        raw, files = files, {}
        for label, paths in raw.items():
            files.setdefault(printable(label), []).extend(paths)
    if not separator:
        files = _spelled_as(class_names, files)
    used = {label for written, paths in files.items() if paths for label in labels_of(written, separator)}
    unknown = sorted(used - set(class_names))
    if unknown:
        raise DataError(
            f"Evaluation has images of {', '.join(map(repr, unknown))}, which training does not have. The classes of "
            f"training are {', '.join(class_names)}. Rename or remove the evaluation class, or add training images of "
            "it."
        )
    number = {name: label for label, name in enumerate(class_names)}
    pairs = [
        (path, [number[label] for label in labels_of(written, separator)])
        for written, paths in files.items()
        for path in paths
    ]
    paths, labels = [path for path, _ in pairs], [row for _, row in pairs]
    source = (
        FileSource(paths, labels, class_names)
        if separator
        else FileSource(paths, [row[0] for row in labels], class_names)
    )
    source.root = os.fspath(root)
    return source


def _spelled_as(class_names: Sequence[str], files: Listing) -> Listing:
    """Returns the files with the labels of ``class_names``, also if their accents are stored in other characters."""
    known = {unicodedata.normalize("NFC", name): name for name in class_names}
    exact = set(class_names)
    spelled: Listing = {}
    for label, paths in files.items():
        name = label if label in exact else known.get(unicodedata.normalize("NFC", label), label)
        spelled.setdefault(name, []).extend(paths)
    return spelled


def labels_of(written: str, separator: str | None) -> list[str]:
    """Splits the labels of an image at the separator, and drops empty ones."""
    return [label.strip() for label in written.split(separator) if label.strip()] if separator else [written]
