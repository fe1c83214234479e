"""Decides which sub-folders of a data folder are splits and which are classes, by their names and what is in them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.formats import IMAGE_SUFFIXES
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.slices import parse_slice
from effnetv2_keras.data.sources.split_names import (
    TEST,
    TRAIN,
    VALIDATION,
    is_unlabeled,
    possible_roles,
    role_of,
    roles_of,
)
from effnetv2_keras.data.sources.walking import (
    OTHER_IMAGE_SUFFIXES,
    Found,
    is_leftover,
    report_left_out,
    sub_folders,
)

_CONTAINERS = frozenset(
    "misc extra extras other others sample samples example examples new old unsorted download downloads backup tmp "
    "temp archive images image imgs photos pictures data dataset raw originals masks annotations".split()
)
"""Names of folders, in lower case, that hold images but are hardly classes."""


@dataclasses.dataclass(frozen=True)
class SplitFolders:
    """The splits of a folder.

    Attributes:
        folders: the folder with the classes of each split, by the name of the split.
        unlabeled: names of splits whose images are in no class folders.
    """

    folders: Mapping[str, pathlib.Path]
    unlabeled: frozenset[str]


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What is in a folder: whether there are images directly in it, and its sub-folders."""

    path: pathlib.Path
    has_images: bool
    folders: tuple[str, ...]

    @property
    def is_split(self) -> bool:
        return bool(self.folders) and not self.has_images


def _shape(folder: pathlib.Path) -> _Shape:
    """Returns what is in a folder; ``seg_train/seg_train/CLASS`` and ``a/a/CLASS`` count as ``seg_train/CLASS``."""
    found = Found()
    folders = tuple(sub_folders(folder, found))
    has_images = bool(found.images or found.num_other_images)
    role = role_of(folder.name)
    same = len(folders) == 1 and (folders[0].lower() == folder.name.lower() or (role and role_of(folders[0]) == role))
    if same and not has_images:
        inner = _shape(folder / folders[0])
        if inner.folders or inner.has_images:
            return inner
    return _Shape(folder, has_images, folders)


def _holds_images(folder: pathlib.Path) -> bool:
    """Returns whether there is an image in or below a folder."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_leftover(name)]
        if any(
            os.path.splitext(name)[1].lower() in (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES) and not is_leftover(name)
            for name in files
        ):
            return True
    return False


def find_split_folders(root: pathlib.Path, data: config_lib.DataConfig) -> SplitFolders | None:
    """Returns the splits of a data folder, or None if its sub-folders are classes.

    A split has the name of one (see ``split_names``) and contains class folders but no images directly. So ``train``
    beside ``bus`` and ``car`` is a class if it contains images. The names in ``data.train_split`` and
    ``data.eval_split`` are taken as they are, except ``train``, which is the default.

    Raises:
        DataError: if it is not certain.
    """
    here = Found()
    names = sub_folders(root, here)
    wanted = parse_slice(data.train_split).name
    evaluation = parse_slice(data.eval_split).name if data.eval_split else ""
    roles = roles_of(names)
    shapes = {name: _shape(root / name) for name in {*roles, *({wanted, evaluation} & set(names))}}
    splits = SplitFolders(
        {name: shapes[name].path if name in shapes else root / name for name in names},
        frozenset(name for name, role in roles.items() if role == TEST and not shapes[name].folders),
    )
    if wanted != TRAIN and wanted in names:
        report_left_out(root, {}, here, skip=data.unreadable == "skip")
        return splits
    others = []
    if roles or possible_roles(names):  # otherwise there is no need to look into them
        others = [name for name in names if name not in roles and not is_unlabeled(name) and _holds_images(root / name)]
    if _are_splits(root, data, roles, shapes, others):
        report_left_out(root, {}, here, skip=data.unreadable == "skip")
        for name in splits.unlabeled:
            logging.warning("%s has no class folders, so its images have no labels and are left out.", root / name)
        unused = sorted(set(names) - set(roles))
        if unused:
            logging.warning("%s: %s are no splits and are left out.", root, ", ".join(map(repr, unused)))
        return splits
    _warn_of_same_folders(root, names)
    return None


def _warn_of_same_folders(root: pathlib.Path, names: list[str]) -> None:
    """Warns if all folders contain the same folders, like splits whose names are not known."""
    common: set[str] | None = None
    for name in names:
        shape = _shape(root / name)
        common = set(shape.folders) if common is None else common & set(shape.folders)
        if shape.has_images or len(common) < 2:
            return
    if common and len(names) > 1 and TRAIN in (inner := roles_of(common)).values():
        logging.warning(
            "%s: each class is divided into %s, but all its images are used together. If these are splits, make them "
            "the outer folders, such as %s/%s.", root, ", ".join(map(repr, sorted(common)[:5])), min(inner), names[0],
        )  # fmt: skip
    elif common and len(names) > 1:
        logging.warning(
            "%s: %s are taken for classes, but each contains %s. If they are splits, name them: "
            "--hparam_str=data.train_split=%s,data.eval_split=%s",
            root, ", ".join(map(repr, names[:5])), ", ".join(map(repr, sorted(common)[:5])), names[0], names[1],
        )  # fmt: skip


def _are_splits(
    root: pathlib.Path,
    data: config_lib.DataConfig,
    roles: Mapping[str, str],
    shapes: Mapping[str, _Shape],
    others: list[str],
) -> bool:
    """Returns whether the folders with roles are splits; raises ``DataError`` if that is not certain."""
    evaluation = parse_slice(data.eval_split).name if data.eval_split else ""
    divided = [name for name in roles if shapes[name].is_split]
    inner = {folder for name in divided for folder in shapes[name].folders}
    if TRAIN not in roles.values():
        _check_doubtful_names(root, others)
        alike = [name for name in others if len(inner & set(_shape(root / name).folders)) > 1] if divided else []
        if divided and (not others or alike or inner & set(others)):
            rest = [name for name in others if name not in alike]
            raise _ask(root, [*divided, *alike], rest, "none of them is called train")
        return False
    if not others:
        return True
    if not any(roles[name] == TRAIN for name in divided):
        if divided:
            raise _ask(root, divided, others, "the folder for training has images that are in no class folder")
        return False
    if evaluation in roles and roles[evaluation] != TRAIN:
        return True
    flat = len(others) > 1 and all(
        _shape(root / name).has_images and name.lower() not in _CONTAINERS for name in others
    )
    if len(roles) == 1 and flat and not inner & set(others):
        logging.warning(
            "%s: %r is taken for a class, because %s hold images directly and are no splits. If it is the training "
            "split, set --data_dir=%s", root, *divided, ", ".join(map(repr, others)), root / divided[0],
        )  # fmt: skip
        return False
    if evaluation or _are_beside_splits(others, [shapes[name] for name in divided if roles[name] == TRAIN],
                                        [shapes[name] for name in divided if roles[name] != TRAIN]):  # fmt: skip
        return True
    raise _ask(root, divided, others, "the others have images too, but no names of splits")


def _are_beside_splits(others: list[str], train: list[_Shape], evaluation: list[_Shape]) -> bool:
    """Returns whether other folders, such as ``masks`` and ``old_test``, can be no classes: the splits share theirs."""
    shared = {name for one in train for two in evaluation for name in set(one.folders) & set(two.folders)}
    roles = possible_roles(others)
    return len(shared) > 1 and all(name.lower() in _CONTAINERS or roles.get(name, TRAIN) != TRAIN for name in others)


def _check_doubtful_names(root: pathlib.Path, others: list[str]) -> None:
    """Raises ``DataError`` if folders of classes have names such as ``train_from_2019`` and ``old_test``."""
    shapes = {name: _shape(root / name) for name in possible_roles(others)}
    possible = {name: role for name, role in possible_roles(others).items() if shapes[name].is_split}
    if len(set(possible.values())) < 2:
        return
    common = set.intersection(*(set(shapes[name].folders) for name in possible))
    if len(common) > (TRAIN not in possible.values()):
        alike = [] if TRAIN in possible.values() else [n for n in others if common <= set(_shape(root / n).folders)]
        splits = sorted({*possible, *alike})
        rest = [name for name in others if name not in splits]
        raise _ask(root, splits, rest, "the names are not quite those of splits")


def _ask(root: pathlib.Path, splits: list[str], others: list[str], reason: str) -> DataError:
    """Returns the error that asks the user which folders are splits."""
    beside = f" beside {', '.join(map(repr, others[:5]))}" if others else ""
    roles = {**possible_roles(splits), **roles_of(splits)}
    ranked = sorted(splits, key=lambda name: (TRAIN, VALIDATION, TEST).index(roles.get(name, TRAIN)))
    train, *rest = ranked
    evaluation = next((name for name in rest if roles.get(name, TRAIN) != TRAIN), f"{train}[:10%]")
    shared = f"{train}[10%:]" if evaluation.endswith("]") else train
    return DataError(
        f"{root} has {', '.join(map(repr, splits))}{beside}. These may be splits or classes, because {reason}. If they "
        f"are splits, name them, such as --hparam_str=data.train_split={shared},data.eval_split={evaluation}, or move "
        "the other folders elsewhere. If they are classes, rename them."
    )
