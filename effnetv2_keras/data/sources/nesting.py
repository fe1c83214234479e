"""Notices a data folder whose classes are one level further down, or there twice, by the folders within classes."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.split_names import TRAIN, roles_of
from effnetv2_keras.data.sources.walking import Found


def check_nesting(root: pathlib.Path, found: Mapping[str, Found], *, whole: bool) -> None:
    """Raises ``DataError`` if folders are certainly no classes, because of the folders in them.

    Args:
        root: the folder of the classes.
        found: what is in and below each class folder.
        whole: whether ``root`` is the folder of the data, not that of a split.
    """
    for name, inside in found.items():
        place, inner = _unwrapped(str(root / name), inside.folders)
        splits = {part for part in inner if _inner(os.path.join(place, part), inside.folders)}
        roles = roles_of(splits)
        if TRAIN in roles.values() and len(set(roles.values())) > 1:
            raise DataError(
                f"The folder {place} seems to be a data set of its own, not a class: it is divided into "
                f"{_listed(roles)}. Set --data_dir={place}, or rename or move these folders."
            )
        others = [part for part in inner if part in found and part != name]
        copies = [part for part in others if _has_images(os.path.join(place, part), inside)]
        if len(copies) > 1:
            raise DataError(
                f"The folder {place} has images of {_listed(copies)}, but these are also folders in {root}. This "
                "happens if an archive is unpacked twice. Move one of the copies elsewhere, or rename these folders."
            )
    empty = [name for name, inside in found.items() if not inside.images]
    if empty or len(found) == 1:
        for name in found.keys() - set(empty):
            place, inner = _unwrapped(str(root / name), found[name].folders)
            if len(inner) > 1:
                advice = f"set --data_dir={place}" if whole else f"move these folders to {root}"
                lacking = f", and no images of {_listed(empty)}" if empty else ""
                raise DataError(
                    f"{root} has images in the folder {name!r} only{lacking}. A data folder needs one sub-folder "
                    f"per class. If {_listed(inner)} are the classes, {advice}"
                )


def _inner(place: str, folders: Iterable[str]) -> set[str]:
    """Returns the names of the folders directly in ``place``."""
    start = os.path.join(place, "")
    return {path[len(start) :].partition(os.sep)[0] for path in folders if path.startswith(start)}


def _unwrapped(place: str, folders: Iterable[str]) -> tuple[str, set[str]]:
    """Returns the first folder, from ``place`` on, that does not contain just one, and the names of those in it."""
    while len(inner := _inner(place, folders)) == 1:
        place = os.path.join(place, *inner)
    return place, inner


def _has_images(place: str, inside: Found) -> bool:
    return any(path.startswith(os.path.join(place, "")) for path in inside.images)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(map(repr, ordered[:5])) + more
