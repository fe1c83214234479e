"""Which images belong together, such as those of one patient: by a column of the list, the file name or the folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.data.sources.base import DataError

FOLDER = "folder"
"""Value of ``data.group_by``: the innermost folder of an image is its group."""

Groups = Mapping[str, str]
"""The group of each image, by the path of its file; empty text where there is none."""

_SHOWN = 3  # examples in a message


def name_of(group_by: str) -> str:
    """Returns what to call the groups in a message: ``patient`` for ``(?P<patient>p[0-9]+)``, or else the setting."""
    named = re.findall(r"\(\?P<(\w+)>", group_by)
    return named[0] if len(named) == 1 else group_by


def group_reader(
    group_by: str, root: str | os.PathLike[str], columns: Sequence[str] | None = None
) -> Callable[[str, str], str]:
    """Returns a function that reads the group of an image from its path.

    The function takes the path of the file and that of the folder below which folders count as groups. It returns empty
    text if the image has no group. A pattern is searched in the name of the file or, if it contains a slash, in the
    path relative to ``root``.

    Args:
        group_by: ``data.group_by`` that is no column: ``folder``, or a regular expression with one part in parentheses.
        root: the folder of the data.
        columns: names of the columns, for a list.

    Raises:
        DataError: if ``group_by`` is neither.
    """
    if group_by == FOLDER:
        return lambda path, top: "" if os.path.dirname(path) == top else os.path.basename(os.path.dirname(path))
    other = "" if columns is None else f"a column of the list ({', '.join(filter(None, columns))}), "
    form = (
        f"It must be {other}{FOLDER!r} for the folder of each image, or a pattern of the file name with one part in "
        r"parentheses, such as data.group_by=(patient\d+)"
    )
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise DataError(f"data.group_by={group_by} cannot be read as a regular expression: {error}. {form}") from error
    if not pattern.groups:
        raise DataError(f"data.group_by={group_by} does not say which images belong together. {form}")
    if pattern.groups > 1 and len(pattern.groupindex) != 1:
        raise DataError(
            f"data.group_by={group_by} has {pattern.groups} parts in parentheses, and each may be the group. Write the "
            "others as (?:...), or give the group a name: (?P<patient>...)"
        )
    part, whole = next(iter(pattern.groupindex), 1), "/" in group_by

    def read(path: str, _: str) -> str:
        text = os.path.relpath(path, root).replace(os.sep, "/") if whole else os.path.basename(path)
        found = pattern.search(text)
        return (found[part] or "") if found else ""

    return read


def check_grouped(paths: Iterable[str], groups: Groups, group_by: str) -> None:
    """Raises ``DataError`` with examples unless every image has a group."""
    paths = list(paths)
    without = sorted(path for path in paths if not groups.get(path))
    if without:
        shown = ", ".join(map(printable, without[:_SHOWN]))
        raise DataError(
            f"data.group_by={group_by} gives no group for {len(without)} of {len(paths)} images, such as {shown}. "
            "Change the pattern, the list, or the files so that each image has a group; an image that belongs to no "
            "other may be a group of its own."
        )


def check_apart(train: Iterable[str], evaluation: Iterable[str], groups: Groups, group_by: str) -> None:
    """Raises ``DataError`` if images of one group are in both splits.

    Args:
        train: paths of the training images.
        evaluation: paths of the evaluation images.
        groups: the group of each image.
        group_by: the setting.
    """
    trained: dict[str, str] = {}
    for path in train:
        trained.setdefault(groups[path], path)
    shared = {groups[path]: path for path in sorted(evaluation, reverse=True) if groups[path] in trained}
    if shared:
        group = min(shared)
        names = ", ".join(map(repr, sorted(shared)[:_SHOWN])) + (" and others" if len(shared) > _SHOWN else "")
        some = "1 group" if len(shared) == 1 else f"{len(shared)} groups"
        raise DataError(
            f"{some} (data.group_by={group_by}) {'is' if len(shared) == 1 else 'are'} in both the training and the "
            "evaluation split: "
            f"{names}. For example, {printable(trained[group])} and {printable(shared[group])} belong to {group!r}. "
            "Move all images of a group into one split, or divide the training split anew: "
            "data.folds=5,data.fold=0"
        )
