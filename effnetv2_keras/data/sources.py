"""Sources: encoded (or uint8) images with labels, in an order that a seed fixes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.errors import UsageError

Record = dict[str, tf.Tensor]
"""``image``: encoded bytes (scalar string) or uint8 ``[H, W, C]``; ``label``: int64 scalar in [0, classes);
``name``: scalar string that leads a person to the image; training adds ``index`` and ``epoch``, int64 scalars."""


class DataError(UsageError):
    """Data that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One input worker's part of the data.

    Attributes:
        count: number of workers.
        index: this worker, in [0, count).
    """

    count: int = 1
    index: int = 0


class Source(abc.ABC):
    """One split of a data set."""

    class_names: tuple[str, ...]
    num_examples: int

    @abc.abstractmethod
    def stream(self, *, seed: int, batch_size: int, first_step: int, end_step: int, shard: Shard) -> tf.data.Dataset:
        """Records for training steps ``range(first_step, end_step)``.

        Epochs follow each other without a gap, each in an order of its own that depends only on ``seed`` and the
        epoch; where a run is resumed changes nothing. ``batch_size`` counts images per step over all workers, of
        which this worker takes its share.
        """

    @abc.abstractmethod
    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """Every record of this worker's part exactly once, in the data's own order; all workers' parts join up."""


class RandomAccessSource(Source):
    """A source that can fetch any record by its number: the order of an epoch is a computed permutation."""

    @abc.abstractmethod
    def lookup(self, index: tf.Tensor) -> Record:
        """The record with this number, an int64 scalar in [0, num_examples)."""

    def stream(self, *, seed: int, batch_size: int, first_step: int, end_step: int, shard: Shard) -> tf.data.Dataset:
        """See ``Source.stream``; every step of the run takes the same records for any number of workers."""
        local_batch = batch_size // shard.count

        def fetch(counter: tf.Tensor) -> Record:
            position = counter // local_batch * batch_size + shard.index * local_batch + counter % local_batch
            epoch, offset = position // self.num_examples, position % self.num_examples
            index = tf.random.experimental.index_shuffle(
                offset, tf.stack([tf.constant(seed, tf.int64), epoch]), tf.constant(self.num_examples - 1, tf.int64)
            )
            return {**self.lookup(index), "index": index, "epoch": epoch}

        steps = tf.data.Dataset.range(first_step * local_batch, end_step * local_batch)
        return steps.map(fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """See ``Source.ordered``."""
        indices = tf.data.Dataset.range(self.num_examples).shard(shard.count, shard.index)
        return indices.map(self.lookup, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


class ArraySource(RandomAccessSource):
    """Images held in memory.

    Args:
        images: uint8 ``[N, H, W, C]`` with C of 1, 3 or 4, values 0..255.
        labels: integers ``[N]`` in [0, classes).
        class_names: one per class, in label order.

    Raises:
        DataError: for other shapes, types or label values.
    """

    def __init__(
        self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]], class_names: Sequence[str]
    ) -> None:
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or images.dtype != np.uint8:
            raise DataError(
                f"Images must be uint8 [N, H, W, C] with 1, 3 or 4 channels and values 0..255, got {images.dtype} "
                f"{images.shape}. Floats in [0, 1] become (255 * images).round().astype('uint8')."
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"Labels must be {len(images)} integers, got {labels.dtype} {labels.shape}.")
        _check_labels(labels, class_names)
        self.class_names = tuple(class_names)
        self.num_examples = len(images)
        self._images, self._labels = tf.constant(images), tf.constant(labels, tf.int64)

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``."""
        name = tf.strings.join(["image ", tf.strings.as_string(index)])
        return {"image": tf.gather(self._images, index), "label": tf.gather(self._labels, index), "name": name}


class FileSource(RandomAccessSource):
    """Image files on disk.

    Args:
        paths: one file per image.
        labels: integers ``[N]`` in [0, classes).
        class_names: one per class, in label order.
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[int], class_names: Sequence[str]) -> None:
        _check_labels(np.asarray(labels), class_names)
        self.class_names = tuple(class_names)
        self.num_examples = len(paths)
        self._paths, self._labels = tf.constant(list(paths)), tf.constant(list(labels), tf.int64)

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``; the image is the file's bytes."""
        path = tf.gather(self._paths, index)
        return {"image": tf.io.read_file(path), "label": tf.gather(self._labels, index), "name": path}


class TfdsSource(Source):
    """A split of a prepared TensorFlow Datasets builder, read as encoded records.

    Args:
        builder: a ``tfds.core.DatasetBuilder`` with features ``image`` and ``label``, already prepared.
        split: a split name or slice, such as ``"train[:90%]"``.
        shuffle_buffer: records held for shuffling.
    """

    def __init__(self, builder: Any, split: str, shuffle_buffer: int) -> None:
        features = builder.info.features
        if "image" not in features or "label" not in features:
            raise DataError(f"{builder.name} has the features {list(features)}; classification needs image and label.")
        self.class_names = tuple(features["label"].names)
        self.num_examples = builder.info.splits[split].num_examples
        self._builder, self._split, self._shuffle_buffer = builder, split, shuffle_buffer

    def stream(self, *, seed: int, batch_size: int, first_step: int, end_step: int, shard: Shard) -> tf.data.Dataset:
        """See ``Source.stream``; the shuffle reaches ``shuffle_buffer`` records far."""
        records = self.ordered(shard).enumerate()
        local_batch = batch_size // shard.count
        local_examples = len(range(shard.index, self.num_examples, shard.count))
        first, end = first_step * local_batch, end_step * local_batch

        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            tf.random.set_seed(1)  # of this function's graph: a global seed of 0 would clash with a computed one
            order = tf.random.stateless_uniform([], [seed, epoch], minval=None, maxval=None, dtype=tf.int64)
            shuffled = records.shuffle(self._shuffle_buffer, seed=order, reshuffle_each_iteration=False)
            return shuffled.map(lambda number, record: {**record, "index": number, "epoch": epoch})

        epochs = tf.data.Dataset.range(first // local_examples, -(-end // local_examples))
        return epochs.flat_map(one_epoch).skip(first % local_examples).take(end - first)

    def ordered(self, shard: Shard) -> tf.data.Dataset:
        """See ``Source.ordered``."""
        import tensorflow_datasets as tfds

        records = self._builder.as_dataset(
            split=self._split,
            shuffle_files=False,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, skip_prefetch=True),
        )
        where = f"{self._builder.name} {self._split}, record "

        def named(number: tf.Tensor, record: Record) -> Record:
            name = where + tf.strings.as_string(number)
            return {"image": record["image"], "label": record["label"], "name": name}

        return records.enumerate().shard(shard.count, shard.index).map(named)


def _check_labels(labels: npt.NDArray[Any], class_names: Sequence[str]) -> None:
    if not len(labels):
        raise DataError("There are no images.")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(
            f"Labels go from {labels.min()} to {labels.max()}, but {len(class_names)} classes need labels from 0 to "
            f"{len(class_names) - 1}."
        )
