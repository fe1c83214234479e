"""Weights of the classes in the loss, and what a run says about classes with unequal numbers of images.

The weight of an image is that of its class; a mixed image has the mix of both weights. The weights are scaled so that
their mean over the training images, as they are drawn, is 1. So the sum over a batch of loss times weight, divided by
the batch size, is the weighted mean of the loss over the training images, for any division of the batch over replicas
and micro-batches. Dividing by the weights of one batch would take the effect away from small batches: in a batch
whose images all have one class, the weights would cancel.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from effnetv2_keras.basics.small_files import read_json
from effnetv2_keras.config import Config
from effnetv2_keras.data.left_out import first_names
from effnetv2_keras.data.sources.balanced import check_balanced, shares
from effnetv2_keras.data.sources.base import DataError, RandomAccessSource, Source
from effnetv2_keras.data.sources.counts import counts_of, known_counts
from effnetv2_keras.data.sources.tables import read_table

BALANCED = "balanced"
_HEADINGS = ("class", "weight")
_UNEQUAL = 3.0  # ratio of the largest class to the smallest
_FORMAT = "Give every class a positive number, in JSON as {class: weight} or in CSV with the columns class and weight."


def find_class_weights(config: Config, source: Source) -> tuple[float, ...]:
    """Returns the weight of each class that ``train.class_weights`` asks for, in label order; empty if it is None.

    Their mean over the training images, as ``data.balanced_sampling`` draws them, is 1. A class without training
    images has the weight 1 with ``balanced``.

    Args:
        config: configuration of the run.
        source: the training images. Records are read once to count their classes.

    Raises:
        DataError: if images have several labels, or the file does not exist, or lacks a class, has an unknown one, or
            a weight that is no positive number.
    """
    if config.train.class_weights is None:
        return ()
    weights = _given_weights(config.train.class_weights, source)
    counts = counts_of(source)
    if weights is None:
        weights = np.where(counts > 0, counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)), 1.0)
    return tuple((weights / np.dot(weights, shares(counts, config.data.balanced_sampling))).tolist())


def _given_weights(chosen: str, source: Source) -> npt.NDArray[np.float64] | None:
    """Returns the weights in the file that ``chosen`` names, or None for ``balanced``; raises ``DataError``."""
    if source.multi_label:
        raise DataError(
            f"train.class_weights={chosen} cannot be used where images have several labels, because the loss of an "
            "image has one weight. Set it to None; train.loss_type=sigmoid_focal puts more weight on rare labels."
        )
    return None if chosen == BALANCED else np.array(read_class_weights(chosen, source.class_names))


def read_class_weights(path: str, class_names: Sequence[str]) -> tuple[float, ...]:
    """Returns the weights in a file, in label order, as they are in the file.

    Args:
        path: a ``.json`` file, or else text with the columns ``class`` and ``weight``, with or without a heading.
        class_names: the classes, in label order.

    Raises:
        DataError: if the file does not exist, lacks a class, has an unknown one or one twice, or has a weight that is
            no positive number.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise DataError(
            f"train.class_weights={path} is neither {BALANCED!r} nor a file. Correct the path, or use {BALANCED}. "
            f"{_FORMAT}"
        )
    given = _read_json(file) if file.suffix.lower() == ".json" else _read_rows(file)
    missing = [name for name in class_names if name not in given]
    unknown = sorted(set(given) - set(class_names))
    wrong = [f"{name} ({given[name]!r})" for name in class_names if name in given and not _is_weight(given[name])]
    for names, problem in (
        (unknown, "names classes that the data does not have"),
        (missing, "lacks a weight of the classes"),
        (wrong, "has weights that are not positive numbers"),
    ):
        if names:
            classes = f" The classes of the data are {first_names(class_names)}." if names is unknown else ""
            raise DataError(f"{path} {problem}: {first_names(names)}.{classes} {_FORMAT}")
    return tuple(float(given[name]) for name in class_names)


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _read_json(file: pathlib.Path) -> Mapping[str, Any]:
    content: dict[str, Any] = read_json(file, advice=_FORMAT, error=DataError)
    return content


def _read_rows(file: pathlib.Path) -> Mapping[str, Any]:
    table = read_table(file, lambda cells: sum(cell.strip().lower() in _HEADINGS for cell in cells))
    names = [cell.lower() for cell in table.heading]
    rows: list[Sequence[str]] = [row.cells for row in table.rows]
    if set(_HEADINGS) <= set(names):
        name, weight = map(names.index, _HEADINGS)
    elif len(names) == 2 and isinstance(_number(names[1]), float):
        rows, name, weight = [table.heading, *rows], 0, 1
    else:
        raise DataError(
            f"{file} has the columns {', '.join(map(repr, table.heading)) or 'of an empty file'}. {_FORMAT}"
        )
    found: dict[str, Any] = {}
    for row in rows:
        if row[name] in found:
            raise DataError(f"{file} names the class {row[name]!r} twice. {_FORMAT}")
        found[row[name]] = _number(row[weight])
    return found


def _number(text: str) -> float | str:
    """Returns the number that a text stands for, or the text itself if it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def describe_classes(config: Config, source: Source, weights: Sequence[float] = ()) -> str:
    """Returns what to say about unequal classes before training: at most two lines, empty if there is nothing to say.

    Args:
        config: configuration of the run.
        source: the training images.
        weights: weights of the classes in the loss, if they are known.

    Raises:
        DataError: if ``data.balanced_sampling`` cannot be used with this source.
    """
    check_balanced(source, config.data.balanced_sampling)
    counts = known_counts(source)
    lines = []
    if counts is not None and (line := _unequal(source.class_names, counts)):
        lines.append(line + _advice(config, source))
    if weights:
        lines.append(
            f"Weights in the loss ({config.train.class_weights}): {_range(source.class_names, weights, '.3g')}."
        )
    elif counts is not None and config.data.balanced_sampling:
        drawn = shares(counts, config.data.balanced_sampling) * source.num_examples
        lines.append(f"Images drawn of a class in an epoch: {_range(source.class_names, drawn, ',.0f')}.")
    return "\n".join(lines)


def plan_classes(config: Config, source: Source) -> str:
    """Returns what ``describe_classes`` says, with the weights if they are known without reading the data.

    Raises:
        DataError: as ``find_class_weights`` and ``describe_classes``.
    """
    chosen = config.train.class_weights
    if chosen and known_counts(source) is None:
        _given_weights(chosen, source)
        return describe_classes(config, source)
    return describe_classes(config, source, find_class_weights(config, source))


def _advice(config: Config, source: Source) -> str:
    """Returns which settings help, or nothing if one of them is set."""
    if source.multi_label:
        return "" if config.train.loss_type == "sigmoid_focal" else " See train.loss_type=sigmoid_focal."
    if config.train.class_weights or config.data.balanced_sampling:
        return ""
    sampling = " and data.balanced_sampling=true" if isinstance(source, RandomAccessSource) else ""
    return f" See train.class_weights=balanced{sampling}."


def _unequal(class_names: Sequence[str], counts: npt.NDArray[np.int64]) -> str:
    present = counts[counts > 0]
    if not len(present) or present.max() <= _UNEQUAL * present.min():
        return ""
    small, large = (int(np.flatnonzero(counts == count)[0]) for count in (present.min(), present.max()))
    return (
        f"Unequal classes: {counts[large]:,} training images of {class_names[large]}, but {counts[small]:,} of "
        f"{class_names[small]}."
    )


def _range(class_names: Sequence[str], values: Iterable[float], form: str) -> str:
    """Returns the smallest and the largest value with their classes, or the one value that all have."""
    pairs = sorted(zip(values, class_names))
    (low, first), (high, last) = ((f"{value:{form}}", name) for value, name in (pairs[0], pairs[-1]))
    return f"{low} each" if low == high else f"{low} ({first}) to {high} ({last})"
