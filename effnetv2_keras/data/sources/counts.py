"""The number of images of each class in a source; a source of records is read once to count them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError, Shard, Source

_SAY_EVERY = 10.0  # seconds


def labels_of(source: Source) -> npt.NDArray[np.int64]:
    """Returns the labels of all images, one after the other in data order, int64 ``[n]``.

    If the labels are not known, the data is read once from start to end, which the log says. No image is decoded. The
    labels are kept with the source.

    Raises:
        DataError: if a label is out of range.
    """
    if source.known_labels is None:
        source.known_labels = _read_labels(source)
    return source.known_labels


def known_counts(source: Source) -> npt.NDArray[np.int64] | None:
    """Returns the number of images of each class, int64 ``[classes]``; None if the data must be read to know it."""
    return None if source.known_labels is None else np.bincount(source.known_labels, minlength=len(source.class_names))


def counts_of(source: Source) -> npt.NDArray[np.int64]:
    """Returns the number of images of each class, int64 ``[classes]``; reads the data as ``labels_of`` does."""
    return np.bincount(labels_of(source), minlength=len(source.class_names))


@tf.autograph.experimental.do_not_convert
def _label_and_name(record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.reshape(record["label"], [-1]), record["name"]


def _read_labels(source: Source) -> npt.NDArray[np.int64]:
    logging.info("Reading the labels of %d images, to count their classes.", source.num_examples)
    found: list[int] = []
    records = source.ordered(Shard()).map(_label_and_name).prefetch(256).as_numpy_iterator()
    for number, (labels, name) in enumerate(records, 1):
        wrong = labels[(labels < 0) | (labels >= len(source.class_names))]
        if len(wrong):
            text = name.decode(errors="replace")
            raise DataError(f"{text[0].upper()}{text[1:]} {source.describe_wrong_label(int(wrong[0]))}")
        found += labels.tolist()
        logging.log_every_n_seconds(
            logging.INFO, "Read the labels of %d of %d images.", _SAY_EVERY, number, source.num_examples
        )
    return np.array(found, np.int64)
