"""Divides images into two parts or into folds: by class, and with the images of a group together (no TensorFlow)."""

from __future__ import annotations

import collections
import dataclasses
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from effnetv2_keras.basics.exact import exact
from effnetv2_keras.data.sources.groups import Groups
from effnetv2_keras.data.sources.slices import Slice

Listing = dict[str, list[str]]
"""Paths of image files by label; for multi-label data, by the labels as written in the list."""

NO_LABEL = ""
"""Stands for the label of multi-label images that have none."""


def labels_of(written: str, separator: str | None) -> list[str]:
    """Splits the labels of an image at the separator, and drops empty ones."""
    return [label.strip() for label in written.split(separator) if label.strip()] if separator else [written]


def ranked(paths: Iterable[str]) -> list[str]:
    """Sorts files by a checksum of their names, so that new files do not change the order of the others."""
    return sorted(paths, key=lambda path: (zlib.crc32(os.fsencode(os.path.basename(path))), path))


@dataclasses.dataclass(frozen=True)
class Unit:
    """Images that are never divided: those of a group, or a single image.

    Attributes:
        name: the group, or the path of the image.
        counts: number of images with each label; ``NO_LABEL`` for images without.
        size: number of images.
    """

    name: str
    counts: collections.Counter[str]
    size: int


def units_of(files: Listing, groups: Groups | None, separator: str | None = None) -> list[Unit]:
    """Returns the groups, or the images if there are no groups, sorted by a checksum of their names.

    Args:
        files: the images.
        groups: the group of each image; None if each image is on its own.
        separator: separator of the labels of an image; None if each has one.
    """
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    sizes: collections.Counter[str] = collections.Counter()
    for written, paths in files.items():
        labels = set(labels_of(written, separator)) or {NO_LABEL}
        for path in paths:
            name = path if groups is None else groups[path]
            counts[name].update(labels)
            sizes[name] += 1
    order = ranked(counts) if groups is None else sorted(counts, key=lambda name: (_checksum(name), name))
    return [Unit(name, counts[name], sizes[name]) for name in order]


def _checksum(group: str) -> int:
    return zlib.crc32(group.encode("utf-8", "surrogateescape"))


def divide(files: Listing, names: Collection[str], groups: Groups | None) -> tuple[Listing, Listing]:
    """Returns the images outside of some units, and those in them, in the same order.

    Args:
        files: the images.
        names: the names of the units.
        groups: as for ``units_of``.
    """
    outside: Listing = {label: [] for label in files}
    inside: Listing = {label: [] for label in files}
    for label, paths in files.items():
        for path in paths:
            (inside if (path if groups is None else groups[path]) in names else outside)[label].append(path)
    return outside, inside


def share_of_groups(units: Sequence[Unit], part: Slice) -> set[str]:
    """Returns the names of the groups in a share; adjacent shares neither overlap nor leave out a group.

    The groups follow each other in the order of ``units``. One belongs to the share in which its first image lies.
    """
    total, before, chosen = sum(unit.size for unit in units), 0, set()
    for unit in units:
        if part.start * total <= 100 * before < part.stop * total:
            chosen.add(unit.name)
        before += unit.size
    return chosen


def _total(units: Iterable[Unit]) -> collections.Counter[str]:
    """Returns the number of images with each label."""
    total: collections.Counter[str] = collections.Counter()
    for unit in units:
        total.update(unit.counts)
    return total


def hold_out_groups(units: Sequence[Unit], share: float) -> set[str]:
    """Returns the names of the groups to hold out, about a share of the images of each label.

    Goes through the groups in the order of ``units`` and takes each that brings the numbers of held-out images closer
    to the share. Then takes a group of each label that is still lacking. Leaves training an image of each label. So the
    choice for a group depends only on groups that have labels in common with it.

    Args:
        units: the groups.
        share: share of the images to hold out, in (0, 1).

    Returns:
        The names; they lack a label if no group of it can be held out.
    """
    total = _total(units)
    wanted = {label: max(1, round(exact(share) * count)) for label, count in total.items()}
    held: collections.Counter[str] = collections.Counter()
    chosen: set[str] = set()

    def change(unit: Unit) -> float:
        """Returns by how much the numbers would get further from what is wanted."""
        return sum(
            (abs(held[label] + count - wanted[label]) - abs(held[label] - wanted[label])) / wanted[label]
            for label, count in sorted(unit.counts.items())
        )

    def may_go(unit: Unit) -> bool:
        return all(held[label] + count < total[label] or label == NO_LABEL for label, count in unit.counts.items())

    def take(unit: Unit) -> None:
        chosen.add(unit.name)
        held.update(unit.counts)

    for unit in units:
        if may_go(unit) and change(unit) < 0:
            take(unit)
    for label in sorted(total):
        if not held[label]:
            others = [unit for unit in units if label in unit.counts and may_go(unit)]
            if others:
                take(min(others, key=change))
    return chosen


def deal_into_folds(units: Sequence[Unit], folds: int) -> dict[str, int]:
    """Returns the fold of each unit, so that each label is spread as evenly as the units permit.

    This is iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, 2011),
    applied to groups. The label with the fewest units comes first. Each of its units, the largest first, goes to the
    fold that lacks most images of the label, then of its other labels, then of all. If each unit is one image with one
    label, the numbers of images of a label in two folds differ by one at most.

    Args:
        units: the units, in an order that decides between equal ones.
        folds: number of folds.

    Returns:
        The fold of each unit, in [0, folds), by its name.
    """
    total = _total(units)
    lacking = {label: [count] * folds for label, count in total.items()}  # times the number of folds
    lacking_in_all = [sum(unit.size for unit in units)] * folds
    with_label: dict[str, list[Unit]] = {label: [] for label in total}
    for unit in units:
        for label in unit.counts:
            with_label[label].append(unit)
    waiting = {label: len(members) for label, members in with_label.items()}
    fold_of: dict[str, int] = {}
    while waiting:
        label = min(waiting, key=lambda name: (waiting[name], name))
        del waiting[label]
        members = [unit for unit in with_label[label] if unit.name not in fold_of]
        for unit in sorted(members, key=lambda unit: -unit.counts[label]):
            room = [
                (lacking[label][number], sum(lacking[other][number] for other in unit.counts), lacking_in_all[number])
                for number in range(folds)
            ]
            fold = room.index(max(room))
            fold_of[unit.name] = fold
            lacking_in_all[fold] -= folds * unit.size
            for other, count in unit.counts.items():
                lacking[other][fold] -= folds * count
                if other in waiting:
                    waiting[other] -= 1
    return fold_of


def labels_lacking(units: Sequence[Unit], fold_of: Mapping[str, int], folds: int) -> list[str]:
    """Returns the labels, sorted, that some fold has no image of."""
    places: dict[str, set[int]] = collections.defaultdict(set)
    for unit in units:
        for label in unit.counts:
            places[label].add(fold_of[unit.name])
    return sorted(label for label, found in places.items() if len(found) < folds and label != NO_LABEL)
