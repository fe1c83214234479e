"""Names and shares of splits, such as ``train[2%:]``: the percent syntax of TensorFlow Datasets for every source."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from effnetv2_keras.data.sources.base import DataError

_Item = TypeVar("_Item")
_SYNTAX = re.compile(r"([\w.()-]+(?: [\w.()-]+)*)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A share of a split, such as ``train[2%:]``.

    Attributes:
        name: name of the split.
        start: start of the share, percent, 0 to 99.
        stop: end of the share (exclusive), percent, 1 to 100.
    """

    name: str
    start: int = 0
    stop: int = 100

    def of(self, items: Sequence[_Item]) -> list[_Item]:
        """Returns the items from ``start`` to ``stop``; adjacent slices neither share an item nor leave one out."""
        return list(items[round(self.start * len(items) / 100) : round(self.stop * len(items) / 100)])


def parse_slice(text: str) -> Slice:
    """Parses ``name`` or ``name[a%:b%]``; a and b are whole numbers from 0 to 100, and each may be left out.

    Raises:
        DataError: if the text has another form, or the slice is empty.
    """
    match = _SYNTAX.fullmatch(text)
    if match:
        name, start, stop = match.groups()
        part = Slice(name, int(start or 0), int(stop or 100))
        if part.start < part.stop <= 100:
            return part
    raise DataError(
        f"Cannot parse the split {text!r}. Write the name of a split, or a non-empty share of one in whole percent: "
        "data.train_split=train[2%:],data.eval_split=train[:2%]"
    )
