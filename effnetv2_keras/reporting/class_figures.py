"""The figures of a classifier: of each class, their means, the calibration error and confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_CONFUSED = 1000
"""Largest number of classes for which there is a confusion matrix (8 MB)."""

NUM_BINS = 15
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


class Answers:
    """Collects the answers for images with one label each, batch by batch.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._labels: list[Counts] = []
        self._predicted: list[Counts] = []
        self._probabilities: list[Shares] = []

    def update(self, labels: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: npt.ArrayLike) -> None:
        """Adds a batch.

        Args:
            labels: ``[batch]``, the true classes.
            predicted: ``[batch]``, the most likely classes.
            probabilities: ``[batch]``, the probabilities of the most likely classes, in [0, 1].
        """
        self._labels.append(np.asarray(labels, np.int64))
        self._predicted.append(np.asarray(predicted, np.int64))
        self._probabilities.append(np.asarray(probabilities, np.float64))

    def result(self) -> dict[str, Any]:
        """Returns the figures of all batches that were added.

        Returns:
            A dict with the result of ``means``, and these keys:

            - ``ece``: expected calibration error, see ``calibration_error``;
            - ``num_positive``, ``num_predicted`` and ``num_hits``: int64 ``[classes]``, see ``figures_of_classes``;
            - ``confusion``: int64 ``[classes, classes]``, number of images by true class (rows) and predicted class
              (columns); missing if there are more than 1000 classes.
        """
        labels, predicted = np.concatenate(self._labels), np.concatenate(self._predicted)
        hit = labels == predicted
        tables: dict[str, Any] = {
            name: np.bincount(chosen, minlength=self._num_classes).astype(np.int64)
            for name, chosen in (("num_positive", labels), ("num_predicted", predicted), ("num_hits", labels[hit]))
        }
        if self._num_classes <= MOST_CONFUSED:
            pairs = np.bincount(labels * self._num_classes + predicted, minlength=self._num_classes**2)
            tables["confusion"] = pairs.reshape(self._num_classes, self._num_classes).astype(np.int64)
        return {**means(tables), "ece": calibration_error(np.concatenate(self._probabilities), hit), **tables}


def calibration_error(probabilities: Shares, correct: npt.NDArray[np.bool_]) -> float:
    """Returns the expected calibration error: how far the probability of an answer is from the share of right answers.

    The interval (0, 1] is divided into 15 bins of the same width. The error is the mean over the bins of the absolute
    difference between the mean probability and the share of right answers, weighted by the number of images. Source:
    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Args:
        probabilities: ``[images]``, the probability of the most likely class, in [0, 1].
        correct: ``[images]``, whether that class is right.
    """
    bins = np.clip(np.ceil(probabilities * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(bins, probabilities - correct, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / max(len(probabilities), 1))


def interval(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a share that was measured on some images (Wilson 1927).

    Args:
        share: the measured share, in [0, 1].
        count: number of images; with 0, the interval is (0, 1).
    """
    if count == 0:
        return 0.0, 1.0
    shrunk = share + _Z**2 / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    scale = 1 + _Z**2 / count
    return max(0.0, (shrunk - half) / scale), min(1.0, (shrunk + half) / scale)


def figures_of_classes(tables: Mapping[str, Any]) -> dict[str, Shares]:
    """Returns precision, recall and F1 of each class.

    A class that is never predicted has precision 0 if it has images. What is not defined is NaN: recall and F1 of a
    class without images, and the precision of such a class that is never predicted.

    Args:
        tables: ``num_positive`` (images of the class), ``num_predicted`` (images for which it is predicted) and
            ``num_hits`` (those that are both), int64 ``[classes]`` each.

    Returns:
        ``precision``, ``recall`` and ``f1``, float64 ``[classes]`` each.
    """
    positive, predicted, hits = (np.asarray(tables[f"num_{name}"]) for name in ("positive", "predicted", "hits"))
    known = positive > 0
    return {
        "precision": _ratio(hits, np.maximum(predicted, known), known | (predicted > 0)),
        "recall": _ratio(hits, positive, known),
        "f1": _ratio(2 * hits, positive + predicted, known),
    }


def means(tables: Mapping[str, Any], *, several: bool = False) -> dict[str, float]:
    """Returns the means over the classes that have images, each class with the same weight.

    Args:
        tables: as for ``figures_of_classes``.
        several: whether images may have several labels.

    Returns:
        ``macro_precision``, ``macro_f1`` and ``balanced_accuracy`` (the mean recall, which is called ``macro_recall``
        if images may have several labels). Empty if no class has images.
    """
    known = np.asarray(tables["num_positive"]) > 0
    if not known.any():
        return {}
    of_class = figures_of_classes(tables)
    names = {"precision": "macro_precision", "recall": "macro_recall" if several else "balanced_accuracy"}
    return {names.get(name, f"macro_{name}"): float(values[known].mean()) for name, values in of_class.items()}


def most_confused(confusion: Counts) -> list[tuple[int, int, int]]:
    """Returns the pairs of classes that are confused, as (true, predicted, number of images), most frequent first."""
    wrong = confusion - np.diag(confusion.diagonal())
    true, predicted = np.nonzero(wrong)
    pairs = zip(true.tolist(), predicted.tolist(), wrong[true, predicted].tolist())
    return sorted(pairs, key=lambda pair: -pair[2])


def of_suffix(figures: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Returns the array metrics of one model of ``Evaluator.run``, without its suffix.

    Args:
        figures: result of ``Evaluator.run``.
        suffix: ``""`` for the raw weights, ``"_ema"`` for their moving average.
    """
    return {
        name[: len(name) - len(suffix)]: value
        for name, value in figures.items()
        if isinstance(value, np.ndarray) and (name.endswith("_ema") == bool(suffix))
    }


def _ratio(part: Counts, whole: Counts, known: npt.NDArray[np.bool_]) -> Shares:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=known)
