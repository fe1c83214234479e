"""Draws the images of rare classes more often in training; a draw depends only on seed, epoch and place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError, Extent, RandomAccessSource, Record, Source, shuffled
from effnetv2_keras.data.sources.counts import labels_of


def shares(counts: npt.NDArray[np.int64], strength: float) -> npt.NDArray[np.float64]:
    """Returns how often each class is drawn, as shares that sum to 1.

    A class with ``n`` images is drawn in proportion to ``n ** (1 - strength)``; a class without images never.

    Args:
        counts: number of images of each class, int64 ``[classes]``.
        strength: in [0, 1]; 0 draws all images equally often, 1 all classes.
    """
    wanted = np.where(counts > 0, np.maximum(counts, 1) ** (1.0 - strength), 0.0)
    return np.asarray(wanted / wanted.sum())


class BalancedSource(RandomAccessSource):
    """Draws the images of a source, those of rare classes more often.

    An epoch has as many images as the source. At the end of each epoch, the number of images of each class drawn in
    the run agrees with ``shares``, rounded up or down. Within a class, the numbers of draws of two images differ by at
    most one. The ``epoch`` of a record counts how often the image is drawn, so the copies of an image in
    one epoch are augmented differently.

    Args:
        source: the images, with one label each.
        strength: see ``shares``.
    """

    def __init__(self, source: RandomAccessSource, strength: float) -> None:
        self._source = source
        self.class_names, self.num_examples = source.class_names, source.num_examples
        self.known_labels = labels = labels_of(source)
        counts = np.bincount(labels, minlength=len(self.class_names))
        share = shares(counts, strength)
        edges = np.concatenate([[0.0], np.cumsum(share)[:-1], [1.0]])
        present = counts > 0  # twice as many draws as images contain a turn of all images, wherever they start
        self.epochs_for_all = math.ceil(np.max(2 * counts[present] / (share[present] * self.num_examples)))
        self._edges = tf.constant(edges, tf.float64)
        self._counts = tf.constant(np.maximum(counts, 1), tf.int64)
        self._members = tf.constant(np.argsort(labels, kind="stable"), tf.int64)  # class after class
        self._first = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def extents(self) -> Sequence[Extent]:
        """See ``Source.extents``."""
        return self._source.extents()

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``."""
        return self._source.check_integrity()

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``."""
        return self._source.lookup(index)

    def draw(self, seed: int, epoch: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See ``RandomAccessSource.draw``.

        The places of an epoch are divided among the classes, and a shuffle of the epoch says which of them is at
        ``offset``. The place also tells how many images of the class were drawn before it in the run, and so which
        image of the class is next.
        """
        place = shuffled(offset, self.num_examples, seed, epoch)
        before, after = self._drawn(epoch), self._drawn(epoch + 1)
        ends = tf.cumsum(after - before)
        label = tf.searchsorted(ends, [place], side="right")[0]
        count = tf.gather(self._counts, label)
        drawn = tf.gather(after, label) - (tf.gather(ends, label) - place)  # images of the class before this one
        own_epoch = drawn // count
        # Negative numbers are streams apart from those of the epochs.
        stream = -1 - (own_epoch * len(self.class_names) + tf.cast(label, tf.int64))
        member = shuffled(drawn % count, count, seed, stream)
        return tf.gather(self._members, tf.gather(self._first, label) + member), own_epoch

    def _drawn(self, epoch: tf.Tensor) -> tf.Tensor:
        """Returns the number of images of each class drawn before an epoch, int64 ``[classes]``."""
        edges = tf.cast(tf.floor(tf.cast(epoch * self.num_examples, tf.float64) * self._edges), tf.int64)
        return edges[1:] - edges[:-1]


def balanced(source: Source, strength: float) -> Source:
    """Returns a source that draws rare classes more often, as ``BalancedSource``; with strength 0, ``source`` itself.

    Args:
        source: the training images.
        strength: the setting ``data.balanced_sampling``, in [0, 1].

    Raises:
        DataError: as ``check_balanced``.
    """
    check_balanced(source, strength)
    return BalancedSource(source, strength) if strength and isinstance(source, RandomAccessSource) else source


def check_balanced(source: Source, strength: float) -> None:
    """Raises ``DataError`` if ``balanced`` cannot be used.

    That is so if images have several labels, or the source can only be read from start to end. Strength 0 can always be
    used.
    """
    if not strength:
        return
    if source.multi_label:
        raise DataError(
            f"data.balanced_sampling={strength:g} cannot be used where images have several labels, because an image "
            "that is drawn for one of its labels is also drawn for the others. Set it to 0; train.loss_type="
            "sigmoid_focal puts more weight on rare labels."
        )
    if not isinstance(source, RandomAccessSource):
        raise DataError(
            f"data.balanced_sampling={strength:g} needs images that can be read in any order, but TFRecord files and "
            "TensorFlow Datasets are read from start to end. Set it to 0 and use train.class_weights=balanced, or use "
            "the images as files (data.source=folder or csv)."
        )
