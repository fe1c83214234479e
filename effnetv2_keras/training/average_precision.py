"""Average precision of multi-label images: of each class, the mean over the classes (mAP), and the micro average."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

KEPT_SCORES = 2**24
"""Largest number of scores that are kept exactly: 84 MB per model with their labels.

The 40,504 validation images of COCO have 3.2 million scores.
"""

_CELLS, _MOST_LEVELS = 2**25, 2**16
_LOGIT_LIMIT = 24.0  # a float32 sigmoid is 1 from 17 on

Counts = npt.NDArray[np.integer[Any]]


class AveragePrecision:
    """Computes the average precision of a split from scores that are added batch by batch.

    The average precision of a class is a mean over the images of the class. For each of these images, it takes the
    precision at the score of the image, which is the share of the class among all images with the same or a higher
    score (as ``average_precision_score`` of scikit-learn).

    The result is exact if the split has at most ``kept_scores`` scores (images times classes). For larger splits,
    memory is bounded: scores are rounded to equally spaced levels of the logit from -24 to 24, and each class counts
    the images of each level. Scores outside this range count in the outermost level. There are 65,536 levels, or fewer
    for more than 512 classes, so that a model has at most 2^25 counts of images and 2^25 counts of labels (268 MB).
    The held-out split of ImageNet-21k has 2.2 billion scores, and 1,536 levels that are 0.03 apart. After rounding, the
    result is the expected value if the images of a level are in random order, with a bound of its error.

    Args:
        num_classes: number of classes of the data.
        kept_scores: largest number of scores that are kept exactly.
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
            scores: ``[batch, classes]`` logits, or other scores on that scale that rank the images of a class; NaN
                counts as the lowest score.
            labels: ``[batch, classes]``, above 0 for each label of an image.
            weights: ``[batch]``, 0 for an image to leave out.
        """
        counted = np.asarray(weights) > 0
        kept = np.nan_to_num(np.asarray(scores, np.float32)[counted], nan=-np.inf)
        self._scores.append(kept)
        self._labels.append(np.asarray(labels)[counted] > 0)
        self._num_kept += kept.size
        if self._num_kept > self._kept_scores:
            self._round()

    def result(self) -> dict[str, Any]:
        """Returns the average precision of all batches that were added.

        Returns:
            A dict with these keys:

            - ``average_precision``: float64 ``[classes]``, NaN for a class without images;
            - ``num_positive``: int64 ``[classes]``, number of images of each class;
            - ``map``: mean over the classes that have images; missing if no image has a label;
            - ``global_ap``: average precision of all pairs of image and class in one ranking (micro average); missing
              if no image has a label;
            - ``map_error`` and ``global_ap_error``: largest distance from the exact values; only if scores are rounded.
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
        """Returns the scores and labels that are kept exactly, ``[images, classes]`` each."""
        empty = np.zeros([0, self._num_classes])
        return np.concatenate([empty.astype(np.float32), *self._scores]), np.concatenate([empty > 0, *self._labels])

    def _round(self) -> None:
        """Moves the kept scores and labels into the histograms."""
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
    """Returns the average precision of scores and labels, ``[n]`` each; NaN if there is no label."""
    if not labels.any():
        return float("nan")
    _, rank, images = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(rank[labels], minlength=len(images))
    found = np.cumsum(hits)
    return float(np.sum(hits * (found / np.cumsum(images))) / found[-1])


def _of_levels(images: Counts, hits: Counts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the expected average precision of rounded scores, and a bound of its distance from the exact value.

    A level has ``n`` images, and ``p`` of them are hits. The levels above it have ``N`` images and ``P`` hits. If the
    images of the level are in random order, the i-th image is a hit with probability ``p / n``. If it is a hit, the
    expected number of hits among the first ``N + i`` images is ``P + 1 + (i - 1) (p - 1) / (n - 1)``. The value is
    highest if all hits come first: each hit then has at most the precision ``(P + p) / (N + p)``. It is lowest if all
    hits come last: the j-th hit then has the precision ``(P + j) / (N + n - p + j)``. Sums of ``1 / k`` are computed as
    differences of the digamma function.

    Args:
        images: ``[classes, levels]``, number of images at each level, highest level first.
        hits: ``[classes, levels]``, number of these images that have the label.

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
    """Returns ``1 / (start + 1) + ... + 1 / (start + count)``."""
    upper, lower = tf.math.digamma(start + count + 1), tf.math.digamma(start + 1)
    return (upper - lower).numpy()
