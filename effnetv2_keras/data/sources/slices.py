"""Names of splits, and shares of them: the percent syntax of TensorFlow Datasets, for every source."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from effnetv2_keras.data.sources.base import DataError

_Item = TypeVar("_Item")
_SYNTAX = re.compile(r"([\w.-]+)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A share of a split, such as ``train[2%:]``.

    Attributes:
        name: of the split.
        start: where it begins, percent.
        stop: where it ends, percent.
    """

    name: str
    start: int = 0
    stop: int = 100

    def of(self, items: Sequence[_Item]) -> list[_Item]:
        """The items from ``start`` to ``stop``; slices that meet share none and leave none out."""
        return list(items[round(self.start * len(items) / 100) : round(self.stop * len(items) / 100)])


def parse_slice(text: str) -> Slice:
    """Reads ``name``, or ``name[a%:b%]`` with whole numbers from 0 to 100, each of which may be left out.

    Raises:
        DataError: for anything else.
    """
    match = _SYNTAX.fullmatch(text)
    if match:
        name, start, stop = match.groups()
        part = Slice(name, int(start or 0), int(stop or 100))
        if part.start < part.stop <= 100:
            return part
    raise DataError(
        f"Cannot read the split {text!r}; write a name, or a share of it in whole percent that is not empty: "
        "data.train_split=train[2%:],data.eval_split=train[:2%]"
    )
