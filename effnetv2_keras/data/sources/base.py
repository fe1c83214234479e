"""Base classes of sources: encoded (or uint8) images with labels, in an order that depends only on a seed."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.data.sources.labels import check_labels
from effnetv2_keras.errors import DataAbsentError as DataAbsentError  # noqa: PLC0414  sources import it from here
from effnetv2_keras.errors import DataError as DataError  # noqa: PLC0414

Record = dict[str, tf.Tensor]
"""One image with its label. ``image``: encoded bytes (scalar string) or uint8 ``[H, W, C]``. ``label``: int64 scalar in
[0, classes); for a multi-label source int64 ``[n]``, the classes that apply, possibly none. The pipeline rejects labels
out of range. ``name``: scalar string by which the user can find the image. Training adds ``index`` and ``epoch``, int64
scalars."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One input worker's part of the data.

    Attributes:
        count: number of workers.
        index: index of this worker, in [0, count).
    """

    count: int = 1
    index: int = 0


Extent = tuple[str, range]
"""Records of a file: its path, and the range of record numbers in it."""


class Source(abc.ABC):
    """One split of a data set.

    Attributes:
        class_names: names of the classes, in label order.
        num_examples: number of images.
        multi_label: whether an image may have several labels, or none.
        known_labels: the labels of all images, one after the other, int64 ``[n]``; None if the data must be read.
        epochs_for_all: number of epochs, from any one on, in which training draws every image at least once.
        verified: whether all images were decoded before.
    """

    class_names: tuple[str, ...]
    num_examples: int
    multi_label: bool = False
    known_labels: npt.NDArray[np.int64] | None = None
    epochs_for_all: int = 1
    verified: bool = False

    def extents(self) -> Sequence[Extent]:
        """Returns the files of this split and the ranges of their records; empty for sources without files."""
        return ()

    def describe_wrong_label(self, label: int) -> str:
        """Returns an error message without its subject, such as "Record 3 of FILE", for a label out of range."""
        count = len(self.class_names)
        return (
            f"has the label {label}, but the labels of {count} classes are 0 to {count - 1}. Repair or remove it, or "
            "choose other data."
        )

    def check_integrity(self) -> str | None:
        """Reads the files again after the input failed; returns which file is damaged and what to do, or None."""
        return None

    @abc.abstractmethod
    def stream(self, *, seed: int, batch_size: int, steps: range, shard: Shard) -> tf.data.Dataset:
        """Returns this worker's records for some training steps.

        Epochs follow each other without a gap. The order of each epoch depends only on ``seed`` and the epoch, so it
        is the same in a resumed run.

        Args:
            seed: seed of the run.
            batch_size: images per step over all workers.
            steps: the training steps, with any stride.
            shard: this worker. It gets ``batch_size / shard.count`` images per step.
        """

    @abc.abstractmethod
    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """Returns every record of this worker's part once, in data order; together the parts contain all records."""


def shuffled(place: tf.Tensor, count: int | tf.Tensor, seed: int, stream: tf.Tensor) -> tf.Tensor:
    """Returns what a shuffle of ``range(count)`` has at a place, int64; seed and stream determine the shuffle."""
    seeds = tf.stack([tf.constant(seed, tf.int64), stream])
    return tf.random.experimental.index_shuffle(place, seeds, tf.cast(count, tf.int64) - 1)


class RandomAccessSource(Source):
    """A source that can fetch any record by its index; the order of an epoch is a computed permutation."""

    @abc.abstractmethod
    def lookup(self, index: tf.Tensor) -> Record:
        """Returns the record with this index, an int64 scalar in [0, num_examples)."""

    def stream(self, *, seed: int, batch_size: int, steps: range, shard: Shard) -> tf.data.Dataset:
        """See ``Source.stream``; a step of the run has the same records for any number of workers."""
        local_batch = batch_size // shard.count

        def fetch(counter: tf.Tensor) -> Record:
            step = steps.start + counter // local_batch * steps.step
            position = step * batch_size + shard.index * local_batch + counter % local_batch
            epoch, offset = position // self.num_examples, position % self.num_examples
            index, own_epoch = self.draw(seed, epoch, offset)
            return {**self.lookup(index), "index": index, "epoch": own_epoch}

        counters = tf.data.Dataset.range(len(steps) * local_batch)
        return counters.map(fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def draw(self, seed: int, epoch: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which record is at a place of an epoch, and how often it was drawn before it: int64 scalars."""
        return shuffled(offset, self.num_examples, seed, epoch), epoch

    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """See ``Source.ordered``."""
        indices = tf.data.Dataset.range(self.num_examples).shard(shard.count, shard.index)
        return indices.map(self.lookup, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


class ArraySource(RandomAccessSource):
    """Images held in memory.

    Args:
        images: uint8 ``[N, H, W, C]`` with C = 1, 3 or 4, values 0..255.
        labels: integers ``[N]`` in [0, classes); for several labels per image, booleans ``[N, classes]``.
        class_names: names of the classes, in label order.

    Raises:
        DataError: if a shape, a dtype or a label is not as above.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_],
        class_names: Sequence[str],
    ) -> None:
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.dtype != np.uint8:
            raise DataError(
                f"The images are {images.dtype} {images.shape}, but must be uint8 [N, H, W, C] with 1, 3 or 4 channels "
                "and values 0..255. Convert floats in [0, 1] with (255 * images).round().astype('uint8')."
            )
        self.multi_label = labels.dtype == np.bool_
        shape = (len(images), len(class_names)) if self.multi_label else (len(images),)
        if labels.shape != shape or not (self.multi_label or np.issubdtype(labels.dtype, np.integer)):
            raise DataError(
                f"The labels are {labels.dtype} {labels.shape}, but must be {len(images)} integers. For several labels "
                f"per image, pass booleans {(len(images), len(class_names))}."
            )
        check_labels(np.arange(labels.shape[-1])[labels.any(0)] if self.multi_label else labels, class_names)
        self.class_names = tuple(class_names)
        self.num_examples = len(images)
        self.known_labels = np.nonzero(labels)[1] if self.multi_label else labels.astype(np.int64)
        self._images, self._labels = tf.constant(images), tf.constant(labels, None if self.multi_label else tf.int64)

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``."""
        name = tf.strings.join(["image ", tf.strings.as_string(index)])
        label = tf.gather(self._labels, index)
        return {
            "image": tf.gather(self._images, index),
            "label": tf.where(label)[:, 0] if self.multi_label else label,
            "name": name,
        }


class FileSource(RandomAccessSource):
    """Image files on disk.

    Args:
        paths: one file per image.
        labels: integers in [0, classes): one per image, or a sequence per image for a multi-label source.
        class_names: names of the classes, in label order.

    Attributes:
        labels_of: the labels of every file, by its path.
        root: folder of the data, empty if there is none, and label_bytes: all labels; for ``fingerprint``.

    Raises:
        DataError: if there are no images, or a label is out of range.
    """

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int] | Sequence[Sequence[int]], class_names: Sequence[str]
    ) -> None:
        if not paths:
            raise DataError("There are no images.")
        self.multi_label = np.ndim(labels[0]) > 0
        rows: Sequence[Any] = labels if self.multi_label else [(label,) for label in labels]
        flat = np.asarray([label for row in rows for label in row], np.int64)
        check_labels(flat, class_names)
        self.class_names = tuple(class_names)
        self.num_examples, self.known_labels = len(paths), flat
        self.labels_of = dict(zip(paths, map(tuple, rows)))
        self._files, self._paths = tuple(paths), tf.constant([*map(os.fsencode, paths)])
        self._labels = tf.constant(flat)
        self._ends = tf.constant(np.cumsum([len(row) for row in rows]), tf.int64)
        self.root, self.label_bytes = "", flat.tobytes() + self._ends.numpy().tobytes()

    def extents(self) -> Sequence[Extent]:
        """See ``Source.extents``."""
        return [(path, range(1)) for path in self._files]

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``; finds the first file that can no longer be opened."""
        gone = next((path for path in self._files if not os.access(path, os.R_OK)), None)
        if gone is None:
            return None
        return f"The image {gone} can no longer be opened. Put it back, then run the same command again to resume."

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``; the image is the file's bytes."""
        path = tf.gather(self._paths, index)
        if self.multi_label:
            start = tf.where(index > 0, tf.gather(self._ends, tf.maximum(index - 1, 0)), 0)
            label = self._labels[start : tf.gather(self._ends, index)]
        else:
            label = tf.gather(self._labels, index)
        return {"image": tf.io.read_file(path), "label": label, "name": path}


class StreamSource(Source):
    """A source that is read sequentially; an epoch is shuffled with a buffer of limited size.

    Attributes:
        shuffle_buffer: number of records in the shuffle buffer; they are still encoded.
    """

    shuffle_buffer: int

    @abc.abstractmethod
    def read(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """Returns every record once, as ``(number, raw)``.

        Args:
            seed: int64 scalar that may determine the order in which files are read; None for the data's own order.

        Returns:
            A dataset of ``(number, raw)``: the position of the record in the data's own order, an int64 scalar, and
            the arguments for ``parse``.
        """

    @abc.abstractmethod
    def parse(self, number: tf.Tensor, raw: Any) -> Record:
        """Returns the record for a ``(number, raw)`` of ``read``."""

    def stream(self, *, seed: int, batch_size: int, steps: range, shard: Shard) -> tf.data.Dataset:
        """See ``Source.stream``; records are shuffled with a buffer of ``shuffle_buffer`` records.

        If ``steps`` has a stride, the records of skipped steps are read, but neither parsed nor decoded.
        """
        local_batch = batch_size // shard.count
        local_examples = len(range(shard.index, self.num_examples, shard.count))
        first, end = steps.start * local_batch, steps.stop * local_batch

        @tf.autograph.experimental.do_not_convert
        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            tf.random.set_seed(1)  # sets this graph's seed; a global seed of 0 cannot be combined with a computed seed
            order = tf.random.stateless_uniform([], [seed, epoch], minval=None, maxval=None, dtype=tf.int64)
            records = self._read_all(order).shard(shard.count, shard.index)
            shuffled = records.shuffle(self.shuffle_buffer, seed=order, reshuffle_each_iteration=False)
            return shuffled.map(lambda number, raw: (epoch, number, raw))

        @tf.autograph.experimental.do_not_convert
        def is_wanted(place: tf.Tensor, _: Any) -> tf.Tensor:
            return tf.equal(place // local_batch % steps.step, 0)

        def parse(_: tf.Tensor, record: tuple[tf.Tensor, tf.Tensor, Any]) -> Record:
            epoch, number, raw = record
            return {**self.parse(number, raw), "index": number, "epoch": epoch}

        epochs = tf.data.Dataset.range(first // local_examples, -(-end // local_examples))
        records = epochs.flat_map(one_epoch).skip(first % local_examples).take(end - first).enumerate()
        if steps.step > 1:
            records = records.filter(is_wanted)
        return records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """See ``Source.ordered``."""
        records = self._read_all(None).shard(shard.count, shard.index)
        return records.map(self.parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _read_all(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """Returns ``read(seed)``; it fails if the number of records in the files has changed."""
        return self.read(seed).apply(tf.data.experimental.assert_cardinality(self.num_examples))
