"""Finds which columns of a list hold the images and the labels, by names that people give them."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection, Sequence

from absl import logging

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.split_names import possible_roles, role_of
from effnetv2_keras.data.sources.tables import Table

IMAGE_NAMES = (
    "path filepath imagepath imgpath filename imagefilename imgfilename imagefile imgfile file fname relativepath "
    "relpath fullpath",
    "image img imagename imgname picture photo images",
    "imageid imgid id uuid",
)
LABEL_NAMES = (
    "label labels class classes classname classlabel labelname target targets category categories categoryname tag "
    "tags breed species diagnosis dx",
    "labelid classid targetid categoryid classindex labelindex y",
)
"""Names of the columns in lower case without other characters than letters and digits; the first group with one wins.
``path`` and ``label``, written so, win in any case."""

_MOST_SPLITS = 4

ONE_HOT = {
    **dict.fromkeys(("0", "0.0", "0.", "False", "false", "FALSE"), False),
    **dict.fromkeys(("1", "1.0", "1.", "True", "true", "TRUE"), True),
}
"""What the cells of a class with a column of its own may hold, and whether it applies."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        image: place of the column with the image.
        label: place of the column with the label, or None if there is one column per class.
        classes: for one column per class, the place of each and its name, the class.
    """

    image: int
    label: int | None
    classes: tuple[tuple[int, str], ...] = ()

    def describe(self, heading: Sequence[str]) -> str:
        """Returns which columns are read, in words."""
        labels = (
            f"labels in column {heading[self.label]!r}"
            if self.label is not None
            else f"one column of 0 and 1 for each of the classes {', '.join(name for _, name in self.classes)}"
        )
        return f"images in column {heading[self.image]!r}, {labels}"


def known_names(heading: Sequence[str], *keys: str | None) -> int:
    """Returns how many columns have a name that is known, or that the settings give."""
    known = {_plain(key) for key in keys if key} | set(" ".join(IMAGE_NAMES + LABEL_NAMES).split())
    return sum(_is_one_of(name, known) for name in heading)


def find_group_column(table: Table, group_by: str) -> int | None:
    """Returns the place of the column ``data.group_by``, or None if there is none of this name.

    Raises:
        DataError: if several columns have the name.
    """
    exact = [place for place, name in enumerate(table.heading) if name == group_by]
    found = exact or [place for place, name in enumerate(table.heading) if name.lower() == group_by.lower()]
    if len(found) > 1:
        raise DataError(f"{table.path} has {len(found)} columns {group_by!r}. Give each column another name.")
    return found[0] if found else None


def find_columns(
    table: Table, image_key: str | None, label_key: str | None, *, multi_label: bool, group: int | None = None
) -> Columns:
    """Returns the columns of a list.

    Args:
        table: the list.
        image_key: name of the image column; None for a known name.
        label_key: name of the label column, or several as ``a|b`` for one column of 0 and 1 per class; None for a known
            name. If none is known, all columns of 0 and 1 are classes. Of two columns, one known, the other is taken.
        multi_label: whether an image may have several labels.
        group: place of the column with the groups of the images, which is not a class; None if there is none.

    Raises:
        NoLabelError: if there is a column of images, but none of labels.
        DataError: if a column is missing, or several could be meant.
    """
    image = _find(table, "image", image_key, IMAGE_NAMES)
    several = label_key is not None and "|" in label_key and label_key not in table.heading
    if label_key is not None and several:
        places: list[int | None] = [_find(table, "label", key, ()) for key in label_key.split("|")]
    else:
        label = _find(table, "label", label_key, LABEL_NAMES)
        named = [place for place, name in enumerate(table.heading) if name]
        other = next((place for place in named if place not in (image, label)), None)
        if len(named) == 2 and label is not None and not image_key:
            image = image if image is not None else other
        elif len(named) == 2 and image is not None and not label_key:
            label = other
        if image is not None and label is not None:
            return Columns(image, label)
        places = [] if image is None or label_key else [*_binary(table, (image, group), multi_label=multi_label)]
    if image is not None and not label_key and len(places) < 2:
        raise _unlabeled(table, image)
    if image is None or len(places) < 2 or None in places:
        unlabeled = image is not None and not any(place is not None for place in places)
        raise (NoLabelError if unlabeled else DataError)(
            _missing(table, image, image_key or "path", label_key or "label")
        )
    classes = tuple((place, table.heading[place]) for place in places if place is not None)
    twice = [name for name, count in collections.Counter(name for _, name in classes).items() if count > 1]
    if twice:
        raise _several(table, "label", twice)
    return Columns(image, None, classes)


def warn_of_splits(table: Table, columns: Columns) -> None:
    """Warns about a column that divides the images into splits, because it is not used."""
    for place, name in enumerate(table.heading):
        if place in (columns.image, columns.label) or (place, name) in columns.classes:
            continue
        values: set[str] = set()
        for row in table.rows:
            values.add(row.cells[place])
            if len(values) > _MOST_SPLITS:
                break
        roles = {role_of(value) or possible_roles([value]).get(value) for value in values}
        if len(values) <= _MOST_SPLITS and len(roles) > 1 and None not in roles:
            logging.warning(
                "%s: the column %r divides the images into %s. It is not used: images of all of them are taken. "
                "Write one list for each split, such as train.csv and validation.csv.", table.path, name,
                ", ".join(sorted(map(repr, values))),
            )  # fmt: skip


class NoLabelError(DataError):
    """A list has images, but no column that can hold their labels."""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _is_one_of(name: str, group: Collection[str]) -> bool:
    """Returns whether a name, or its singular, is in a group of plain names."""
    plain = _plain(name)
    return plain in group or (plain[-1:] == "s" and plain[:-1] in group)


def _find(table: Table, kind: str, key: str | None, groups: Sequence[str]) -> int | None:
    """Returns the place of a column with this name, or with a known name if there is no key; None if there is none."""
    documented = {"image": "path", "label": "label"}[kind]
    exact = [place for place, name in enumerate(table.heading) if name == (key or documented)]
    choices = [exact] + [
        [place for place, name in enumerate(table.heading) if _is_one_of(name, group)]
        for group in ([{_plain(key)}] if key else [set(names.split()) for names in groups])
    ]
    found = next(filter(None, choices), [])
    if len(found) > 1:
        raise _several(table, kind, [table.heading[place] for place in found])
    return found[0] if found else None


def _binary(table: Table, taken: Collection[int | None], *, multi_label: bool) -> list[int]:
    """Returns the places of the columns that hold only 0 and 1, if they are the classes beyond doubt."""
    others = [place for place, name in enumerate(table.heading) if name and place not in taken]
    binary = [place for place in others if table.rows and all(row.cells[place] in ONE_HOT for row in table.rows)]
    if binary == others:
        return binary
    one_each = all(sum(ONE_HOT[row.cells[place]] for place in binary) == 1 for row in table.rows)
    return binary if one_each and not multi_label else []


def _several(table: Table, kind: str, names: Sequence[str]) -> DataError:
    twice = len(set(names)) < len(names) or len(names) == 1
    return DataError(
        f"{table.path} has several columns that can hold the {kind}: {', '.join(map(repr, names))}. "
        + ("Give each column another name." if twice else f"Choose one: --hparam_str=data.{kind}_key={names[0]}")
    )


def _unlabeled(table: Table, image: int) -> NoLabelError:
    others = [name for place, name in enumerate(table.heading) if name and place != image]
    return NoLabelError(
        f"{table.path} has images in column {table.heading[image]!r}, but no column 'label' or of a similar name. "
        f"The other columns are: {', '.join(others) or 'none'} ({table.format()}). "
        + (f"Name the column of the label, such as --hparam_str=data.label_key={others[-1]}. If each class has a "
           "column of 0 and 1, name them: data.label_key=a|b|c" if others else "Add a column with the labels.")
    )  # fmt: skip


def _missing(table: Table, image: int | None, path_key: str, label_key: str) -> str:
    wanted = [key for key in (path_key, *label_key.split("|")) if key not in table.heading]
    if image is not None:
        wanted = [key for key in wanted if key != path_key]
    read_as_row = any(re.search(r"\.\w{3,4}$", name) for name in table.heading)
    return (
        f"{table.path} has no column {', '.join(map(repr, wanted))}. The columns in its first line are: "
        f"{', '.join(filter(None, table.heading)) or 'none'} ({table.format()}). "
        + ("That line seems to be the row of an image. " if read_as_row else "")
        + f"Add the first line {path_key},{label_key}, or set data.image_key and data.label_key to the names of the "
        "columns. If each class has a column of 0 and 1, name them: data.label_key=a|b|c"
    )
