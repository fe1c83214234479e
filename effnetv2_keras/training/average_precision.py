"""Average precision of images with several labels: of each class, their mean (mAP), and of all pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
    are then those of the rounded scores, and come with a bound of what rounding can have changed.

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
            pairs of image and class in one ranking (micro average). Of rounded scores, ``map_error`` and
            ``global_ap_error`` too: the exact figures are at most so far away. Without any label, the arrays alone.
        """
        if self._histograms:
            self._round()
            images, hits = self._histograms
            ranked = (images[:, ::-1], hits[:, ::-1])
            classes = [_average_precision(*pair) for pair in zip(*ranked)]
            errors = [_rounding_error(*pair) for pair in zip(*ranked)]
            pooled = tuple(part.sum(axis=0, dtype=np.int64) for part in ranked)
            overall, overall_error = _average_precision(*pooled), _rounding_error(*pooled)
            num_positive = hits.sum(axis=1, dtype=np.int64)
        else:
            scores, labels = self._kept()
            classes = [_average_precision(*_tied(*pair)) for pair in zip(scores.T, labels.T)]
            overall = _average_precision(*_tied(scores.ravel(), labels.ravel()))
            num_positive = labels.sum(axis=0)
        figures: dict[str, Any] = {"average_precision": np.asarray(classes), "num_positive": num_positive}
        if num_positive.any():
            figures.update(map=float(np.nanmean(classes)), global_ap=overall)
            if self._histograms:
                figures.update(map_error=float(np.nanmean(errors)), global_ap_error=overall_error)
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


def _tied(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Counts images, and those with the label, at each score that there is, highest first."""
    _, rank, images = np.unique(-scores, return_inverse=True, return_counts=True)
    return images, np.bincount(rank[labels], minlength=len(images))


def _average_precision(images: Counts, hits: Counts) -> float:
    """Average precision from the counts of images, and of those with the label, highest score first; NaN of none."""
    images, hits = images[images > 0], hits[images > 0]
    found = np.cumsum(hits, dtype=np.int64)
    if not len(found) or not found[-1]:
        return float("nan")
    return float(np.sum(hits * (found / np.cumsum(images, dtype=np.int64))) / found[-1])


def _rounding_error(images: Counts, hits: Counts) -> float:
    """How far the average precision can be from that of the scores before rounding; arguments as before.

    Of ``n`` images in a level with ``p`` hits, ``N`` images and ``P`` hits above it: the hits have at most the
    precision ``(P + p) / (N + p)``, with all of them first; and the j-th has at least ``(P + j) / (N + n - p + j)``,
    with all of them last. The sum of that over j is bounded by an integral, since ``1 / x`` is convex.
    """
    occupied = hits > 0
    before = (np.cumsum(images, dtype=np.int64) - images)[occupied], (np.cumsum(hits, dtype=np.int64) - hits)[occupied]
    images, hits = images[occupied].astype(np.int64), hits[occupied].astype(np.int64)
    if not len(hits):
        return float("nan")
    images_before, hits_before = before
    value = hits * (hits_before + hits) / (images_before + images)
    highest = hits * (hits_before + hits) / (images_before + hits)
    misses_first = images_before + images - hits
    lowest = hits - (misses_first - hits_before) * np.log((misses_first + hits + 0.5) / (misses_first + 0.5))
    return float(max(np.sum(highest - value), np.sum(value - lowest)) / hits.sum())
