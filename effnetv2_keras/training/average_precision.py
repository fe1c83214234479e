"""Average precision of images with several labels: of each class, their mean (mAP), and of all pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

KEPT_SCORES = 2**24
"""Scores kept as they are; with their labels, 84 MB a model. COCO's 40,504 validation images have 3.2 million."""

_CELLS, _MOST_LEVELS = 2**25, 2**16
_LOGIT_LIMIT = 24.0  # a float32 sigmoid is 1 from 17 on

Counts = npt.NDArray[np.integer[Any]]


class AveragePrecision:
    """Gathers the scores of a split, batch by batch.

    The average precision of a class is the mean, over its images, of the precision at the score of each: the share of
    the class among the images that score as much or more (as scikit-learn's ``average_precision_score``). It is exact
    as long as the split has at most ``kept_scores`` scores, which is images times classes. Beyond that, memory is
    bounded: each class counts its scores in equal levels of the logit from -24 to 24, those beyond in the outermost.
    There are 65,536 levels or, for more than 512 classes, as many as make 2^25 counts of images and 2^25 of labels,
    268 MB a model. (ImageNet-21k, whose held-out part has 2.2 billion scores: 1,536 levels, 0.03 apart.) The figures
    are then what is expected if images of a level are in random order, and come with a bound of what they can be off.

    Args:
        num_classes: of the data.
        kept_scores: see above.
    """

    def __init__(self, num_classes: int, *, kept_scores: int = KEPT_SCORES) -> None:
        self._num_classes, self._kept_scores = num_classes, kept_scores
        self._num_levels = min(_MOST_LEVELS, max(_CELLS // num_classes, 2))
        self._scores: list[npt.NDArray[np.float32]] = []
        self._labels: list[npt.NDArray[np.bool_]] = []
        self._num_kept = 0
        self._histograms: tuple[Counts, Counts] | None = None

    def update(self, scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """Adds a batch.

        Args:
            scores: logits, or what else ranks the images of a class on that scale, ``[batch, classes]``; NaN counts as
                the lowest.
            labels: above 0 for each label that an image has, ``[batch, classes]``.
            weights: 0 for an image to leave out, ``[batch]``.
        """
        counted = np.asarray(weights) > 0
        kept = np.nan_to_num(np.asarray(scores, np.float32)[counted], nan=-np.inf)
        self._scores.append(kept)
        self._labels.append(np.asarray(labels)[counted] > 0)
        self._num_kept += kept.size
        if self._num_kept > self._kept_scores:
            self._round()

    def result(self) -> dict[str, Any]:
        """Computes the figures of all that was added.

        Returns:
            ``average_precision``, float64 ``[classes]``, NaN for a class without an image; ``num_positive``, images of
            each class, int64 ``[classes]``; ``map``, the mean over the classes with an image; ``global_ap``, of all
            pairs of image and class in one ranking (micro average). Of counted scores, ``map_error`` and
            ``global_ap_error`` too: the exact figures are at most so far away. Without any label, the arrays alone.
        """
        if self._histograms:
            self._round()
            images, hits = (histogram[:, ::-1] for histogram in self._histograms)
            classes, errors = _of_levels(images, hits)
            pooled = (part.sum(axis=0, keepdims=True, dtype=np.int64) for part in (images, hits))
            (overall,), (overall_error,) = _of_levels(*pooled)
            num_positive = hits.sum(axis=1, dtype=np.int64)
        else:
            scores, labels = self._kept()
            classes = np.asarray([_of_scores(*pair) for pair in zip(scores.T, labels.T)])
            overall = _of_scores(scores.ravel(), labels.ravel())
            num_positive = labels.sum(axis=0)
        figures: dict[str, Any] = {"average_precision": classes, "num_positive": num_positive}
        if num_positive.any():
            figures.update(map=float(np.nanmean(classes)), global_ap=float(overall))
            if self._histograms:
                figures.update(map_error=float(np.nanmean(errors)), global_ap_error=float(overall_error))
        return figures

    def _kept(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Scores and labels that are kept, ``[images, classes]`` each."""
        empty = np.zeros([0, self._num_classes])
        return np.concatenate([empty.astype(np.float32), *self._scores]), np.concatenate([empty > 0, *self._labels])

    def _round(self) -> None:
        """Moves what is kept into the histograms."""
        if self._histograms is None:
            shape = (self._num_classes, self._num_levels)
            self._histograms = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
        images, hits = self._histograms
        scores, labels = self._kept()
        scaled = (np.clip(scores, -_LOGIT_LIMIT, _LOGIT_LIMIT) / _LOGIT_LIMIT + 1) / 2 * self._num_levels
        levels = np.minimum(scaled.astype(np.int64), self._num_levels - 1)
        for number, (level, label) in enumerate(zip(levels.T, labels.T)):
            images[number] += np.bincount(level, minlength=self._num_levels).astype(np.uint32)
            hits[number] += np.bincount(level[label], minlength=self._num_levels).astype(np.uint32)
        self._scores, self._labels, self._num_kept = [], [], 0


def _of_scores(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> float:
    """Average precision of scores and labels, ``[n]`` each; NaN without a label."""
    if not labels.any():
        return float("nan")
    _, rank, images = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(rank[labels], minlength=len(images))
    found = np.cumsum(hits)
    return float(np.sum(hits * (found / np.cumsum(images))) / found[-1])


def _of_levels(images: Counts, hits: Counts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Average precision of rounded scores, and how far from it that of the scores before rounding can be.

    Of the ``n`` images of a level, ``p`` are hits; ``N`` images and ``P`` hits are above it. If their order is random,
    the i-th is a hit with the probability ``p / n``, and then ``P + 1 + (i - 1) (p - 1) / (n - 1)`` hits are expected
    up to it, of ``N + i`` images. At most, with all hits first, each has the precision ``(P + p) / (N + p)``; at
    least, with all last, the j-th has ``(P + j) / (N + n - p + j)``. Sums of ``1 / k`` are differences of digamma.

    Args:
        images: of each class (rows) at each level, highest first, ``[classes, levels]``.
        hits: those of them that have the label.

    Returns:
        Value and error, ``[classes]`` each; NaN for a class without a hit.
    """
    occupied = np.nonzero(hits)
    n, p = images[occupied].astype(np.float64), hits[occupied].astype(np.float64)
    images_above = np.cumsum(images, axis=1, dtype=np.int64)[occupied] - n
    hits_above = np.cumsum(hits, axis=1, dtype=np.int64)[occupied] - p
    slope = (p - 1) / np.maximum(n - 1, 1)
    intercept = hits_above + 1 - slope * (images_above + 1)
    expected = p / n * (intercept * _sum_of_inverses(images_above, n) + slope * n)
    highest = p * (hits_above + p) / (images_above + p)
    misses_first = images_above + n - p
    lowest = p - (misses_first - hits_above) * _sum_of_inverses(misses_first, p)

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums, num_hits = (np.bincount(occupied[0], part, minlength=len(images)) for part in (values, p))
        return np.divide(sums, num_hits, out=np.full(len(images), np.nan), where=num_hits > 0)

    return mean(expected), np.maximum(mean(highest - expected), mean(expected - lowest))


def _sum_of_inverses(start: npt.NDArray[np.float64], count: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``1 / (start + 1) + ... + 1 / (start + count)``."""
    upper, lower = tf.math.digamma(start + count + 1), tf.math.digamma(start + 1)
    return (upper - lower).numpy()
