"""Reads the labels of one row of a list: plain, separated, as a Python or JSON list, or one column per class."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.columns import ONE_HOT, Columns
from effnetv2_keras.data.sources.division import labels_of
from effnetv2_keras.data.sources.tables import Row

_WORDS = {";": "';'", ",": "comma", "|": "'|'", " ": "space"}
"""How the separators that are tried are written in a setting."""


def written_labels(row: Row, columns: Columns, data: config_lib.DataConfig, where: str) -> str:
    """Returns the labels of a row as text: one label, or with ``data.multi_label`` labels between separators.

    Args:
        row: the row.
        columns: the columns of its list.
        data: the data settings.
        where: subject of an error message, such as "LIST, line 3: IMAGE".

    Raises:
        DataError: if there is no label, or several without ``data.multi_label``, or a label contains a line break or
            the separator.
    """
    if columns.label is None:
        labels: list[str] | None = _one_hot(row, columns, where)
        written = ""
    else:
        written = row.cells[columns.label]
        labels = _list_literal(written)
    if labels is not None:
        if not data.multi_label and len(labels) > 1:
            raise DataError(
                f"{where} has {len(labels)} labels, {', '.join(labels)}, but must have one. If images have "
                "several labels, set data.multi_label=true and train.loss_type=sigmoid."
                + (" If a column is no class, name the others: data.label_key=a|b|c" if columns.classes else "")
            )
        clash = [label for label in labels if data.multi_label and data.label_separator in label]
        if clash:
            raise DataError(
                f"{where} has the label {clash[0]!r}, which contains the separator {data.label_separator!r}. Set "
                "data.label_separator to text that no label contains."
            )
        written = data.label_separator.join(labels)
    if "\n" in written or "\r" in written:
        raise DataError(
            f"{where} has the label {written[:40]!r}, which contains a line break. Remove it; perhaps a quotation "
            "mark is missing."
        )
    if not written and not data.multi_label:
        raise DataError(f"{where} has no label. Give it one, or remove the row.")
    return written


def warn_of_separators(written: Iterable[str], data: config_lib.DataConfig, name: str) -> None:
    """Warns if the labels of a list look as if they were separated in another way than the settings say.

    A separator is likely if dividing at it leaves fewer different labels.

    Args:
        written: the different labels, as written.
        data: the data settings.
        name: the list.
    """
    texts = set(written)
    if data.multi_label and any(data.label_separator in text for text in texts):
        return
    for mark, word in _WORDS.items():
        divided = [text for text in texts if mark in text]
        parts = {label for text in texts for label in labels_of(text, mark)}
        if divided and len(parts) < len(texts):
            logging.warning(
                "%s: %r is one label, because %s. If it is several, set data.multi_label=true,data.label_separator=%s",
                name, min(divided), f"the separator is {data.label_separator!r}" if data.multi_label
                else "data.multi_label is false", word,
            )  # fmt: skip
            return


def _one_hot(row: Row, columns: Columns, where: str) -> list[str]:
    """Returns the classes whose columns hold 1."""
    for place, name in columns.classes:
        if row.cells[place] not in ONE_HOT:
            raise DataError(
                f"{where} has {row.cells[place]!r} in the column {name!r} of a class, which must hold 0 or 1. Correct "
                "it, or name the columns of the classes: data.label_key=a|b|c"
            )
    return [name for place, name in columns.classes if ONE_HOT[row.cells[place]]]


def _list_literal(text: str) -> list[str] | None:
    """Returns the items of ``['a', 'b']``, ``["a"]``, ``[a, b]``, ``('a', 'b')``, or NumPy's ``['a' 'b']``.

    Returns None for other text.
    """
    if len(text) < 2 or (text[0], text[-1]) not in (("[", "]"), ("(", ")")):
        return None
    try:
        items = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if text[0] != "[":
            return None
        inner = text[1:-1]
        numbers = re.fullmatch(r"[\d\s]+", inner)
        items = inner.split(None if numbers else ",")
    if not isinstance(items, (list, tuple)):
        return None
    return [label for item in items if (label := str(item).strip())]
