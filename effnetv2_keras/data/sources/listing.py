"""From lists of image files by label to the two sources of a run: chooses the splits, and holds out images."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import Callable

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataError, FileSource
from effnetv2_keras.data.sources.slices import Slice, parse_slice
from effnetv2_keras.data.sources.tfds import EVAL_SPLITS
from effnetv2_keras.exact import exact

Listing = dict[str, list[str]]
"""Paths of image files by label; for multi-label data, by the labels as written in the list."""


def choose(listing: Callable[[str], Listing | None], data: config_lib.DataConfig) -> tuple[Listing, Listing]:
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
        label: set(_ranked(paths)[: max(1, round(exact(data.holdout) * len(paths)))]) for label, paths in files.items()
    }
    train = {label: [path for path in paths if path not in held_out[label]] for label, paths in files.items()}
    single = [] if data.multi_label else [label for label, paths in train.items() if not paths]
    if single:
        raise DataError(
            f"Class {', '.join(map(repr, single))} has only one image, so none can be held out. Add images, or create "
            f"train and validation splits in {data.data_dir}."
        )
    return train, {label: [path for path in paths if path in held_out[label]] for label, paths in files.items()}


def file_source(files: Listing, class_names: tuple[str, ...], separator: str | None = None) -> FileSource:
    """Builds the source; it is multi-label if there is a separator."""
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
    if separator:
        return FileSource(paths, labels, class_names)
    return FileSource(paths, [row[0] for row in labels], class_names)


def labels_of(written: str, separator: str | None) -> list[str]:
    """Splits the labels of an image at the separator, and drops empty ones."""
    return [label.strip() for label in written.split(separator) if label.strip()] if separator else [written]
