"""Reads a text file of rows and columns: finds its encoding, its delimiter and its heading."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Callable

from effnetv2_keras.basics.text_files import decode
from effnetv2_keras.data.sources.base import DataError

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_LONGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit is 131,072
_SPREADSHEET_HINT = re.compile(r'\ufeff?"?sep=(.)"?\r?\n', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        line: number of its last line in the file, from 1.
        cells: as many as the heading has, without spaces at their ends.
    """

    line: int
    cells: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A list of rows under a heading.

    Attributes:
        path: the file.
        encoding: encoding of the file.
        delimiter: character between two cells.
        heading: names of the columns; empty at the place of a column without a name.
        rows: the rows that are not blank.
    """

    path: pathlib.Path
    encoding: str
    delimiter: str
    heading: tuple[str, ...]
    rows: tuple[Row, ...]

    def format(self) -> str:
        """Returns encoding and delimiter in words."""
        name = "space" if self.delimiter == " " else _DELIMITERS.get(self.delimiter, repr(self.delimiter))
        return f"{self.encoding}, {name}-separated"


def read_table(path: pathlib.Path, score: Callable[[Sequence[str]], int], *, joins_last: str | None = None) -> Table:
    """Reads a list separated by commas, semicolons, tabs, bars or spaces; the heading tells by which.

    Args:
        path: the file.
        score: returns how many names of a heading are known. The delimiter is the one with most known names, then the
            one with most columns; spaces, if the heading has no other delimiter. A first line ``sep=;``, as
            spreadsheets write it, decides instead.
        joins_last: if the delimiter is this separator of labels, cells beyond the heading belong to the last column.

    Raises:
        DataError: if a row has more cells than the heading.
        UsageError: if the file is not text.
    """
    text, encoding = decode(path.read_bytes(), path)
    skipped, hint = 0, _SPREADSHEET_HINT.match(text)
    if hint:
        skipped, text = 1, text[hint.end() :]
    head = next((line for line in text.splitlines() if line.strip()), "")

    def cells_of(delimiter: str) -> list[str]:
        return next(csv.reader([head], delimiter=delimiter), [])

    delimiter = hint[1] if hint else max(_DELIMITERS, key=lambda mark: (score(cells_of(mark)), len(cells_of(mark))))
    if not hint and len(cells_of(delimiter)) == 1 and score(cells_of(" ")) > 1:
        delimiter = " "
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    heading: tuple[str, ...] | None = None
    rows = []
    for raw in reader:
        cells, line = [cell.strip() for cell in raw], reader.line_num + skipped
        if not any(cells):
            continue
        if heading is None:
            heading = tuple(cells)
            continue
        width = len(heading)
        if len(cells) > width and delimiter == joins_last:
            cells[width - 1 :] = [delimiter.join(filter(None, cells[width - 1 :]))]
        if any(cells[width:]):
            raise DataError(
                f"{path}, line {line}: there are {len(cells)} cells, but the heading has {width}: "
                f"{', '.join(map(repr, heading))}. Put quotes around a cell that contains {delimiter!r}."
            )
        rows.append(Row(line, tuple((cells + [""] * width)[:width])))
    return Table(path, encoding, delimiter, heading or (), tuple(rows))
