"""From lists of image files by label to the two sources of a run: chooses the splits, or divides the files."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from typing import Callable

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.data.sources.base import DataError, FileSource
from effnetv2_keras.data.sources.division import Listing, labels_of
from effnetv2_keras.data.sources.groups import Groups
from effnetv2_keras.data.sources.parts import Divider
from effnetv2_keras.data.sources.slices import Slice, parse_slice
from effnetv2_keras.data.sources.split_names import TRAIN, announce, find_evaluation, find_train, find_validation


def choose(
    names: Collection[str] | None,
    read: Callable[[str], Listing],
    data: config_lib.DataConfig,
    *,
    unlabeled: Collection[str] = (),
    groups: Groups | None = None,
) -> tuple[Listing, Listing]:
    """Returns the training files and the evaluation files by label; training has every label of its folder or list.

    Args:
        names: the splits that exist; None if the data is not divided into splits.
        read: returns the files of a split; of all the data if it is not divided.
        data: the data settings.
        unlabeled: names of splits that are used only if ``data.eval_split`` names them.
        groups: with ``data.group_by``, the group of each image that ``read`` has returned so far.
    """
    train_part = parse_slice(data.train_split)
    prefer_plain, place = data.source == "csv", str(data.data_dir)
    name = train_part.name if names is None else find_train(names, data, place, prefer_plain=prefer_plain)
    if name is None:
        raise DataError(_missing(data, "data.train_split", train_part, names))
    divider = Divider(data, groups)
    every = read(name)
    train, fold = divider.share(every, train_part, "training"), None
    if data.folds:
        validation = _validation_to_pool(names, data)
        if validation:
            train = _pooled(train, read(validation), data)
        train, fold = divider.fold(train, [name, validation] if validation else [name])
    if data.eval_split:
        part = parse_slice(data.eval_split)
        same = part.name in (name, train_part.name)
        if not same and part.name not in (names or ()):
            raise DataError(_missing(data, "data.eval_split", part, names))
        _announce(names, place, name, name if same else part.name, chosen=True)
        evaluation = divider.share(every if same else read(part.name), part, "evaluation")
        divider.check_apart(train, evaluation)
        return train, evaluation
    if fold is not None:
        return train, fold
    found = find_evaluation(names or (), place, exclude={name, *unlabeled}, prefer_plain=prefer_plain)
    _announce(names, place, name, found, chosen=False)
    if not found:
        return divider.hold_out(train)
    evaluation = read(found)
    divider.check_apart(train, evaluation)
    return train, evaluation


def _announce(names: Collection[str] | None, place: str, train: str, evaluation: str | None, *, chosen: bool) -> None:
    if names is not None:
        announce(place, names, train, evaluation, chosen=chosen)


def _missing(data: config_lib.DataConfig, setting: str, part: Slice, names: Collection[str] | None) -> str:
    """Returns the error message for a split that does not exist."""
    where = f"list {data.data_dir}/{part.name}.csv" if data.source == "csv" else f"folder {data.data_dir}/{part.name}"
    listed = f" There are {', '.join(map(repr, sorted(names)))}." if names else ""
    advice = f"Create it, or set {setting} to an existing split."
    return f"There is no {where}, the split that {setting} names.{listed} {advice}"


def _validation_to_pool(names: Collection[str] | None, data: config_lib.DataConfig) -> str | None:
    """Returns the validation split, from which folds are made too unless ``data.train_split`` is set."""
    if not names or data.train_split != TRAIN:
        return None
    return find_validation(names, str(data.data_dir), prefer_plain=data.source == "csv")


def _pooled(train: Listing, validation: Listing, data: config_lib.DataConfig) -> Listing:
    """Returns the files of both splits."""
    if not data.multi_label:
        validation = _spelled_as(tuple(train), validation)
        _check_known(validation, train)
    return {label: train.get(label, []) + validation.get(label, []) for label in sorted({*train, *validation})}


def _check_known(files: Listing, known: Collection[str], separator: str | None = None) -> None:
    """Raises ``DataError`` if evaluation has labels that training does not have."""
    used = {label for written, paths in files.items() if paths for label in labels_of(written, separator)}
    unknown = sorted(used - set(known))
    if unknown:
        raise DataError(
            f"Evaluation has images of {', '.join(map(repr, unknown))}, which training does not have. The classes of "
            f"training are {', '.join(known)}. Rename or remove the evaluation class, or add training images of it."
        )


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
    _check_known(files, class_names, separator)
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
