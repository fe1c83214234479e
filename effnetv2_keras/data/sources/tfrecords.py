"""The source ``tfrecord``: TFRecord shards of encoded images, in the layout of the reference code or another one."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import tensorflow as tf
from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, Extent, Record, StreamSource
from effnetv2_keras.data.sources.integrity import find_bad_record
from effnetv2_keras.data.sources.labels import class_names_of
from effnetv2_keras.data.sources.shards import TfRecordFile, find_shards, open_shard, record_files
from effnetv2_keras.data.sources.slices import parse_slice
from effnetv2_keras.data.sources.split_names import announce, find_evaluation, find_train
from effnetv2_keras.data.sources.tfrecord_layout import IMAGE_KEY, LABEL_KEY, TfRecordLayout
from effnetv2_keras.data.sources.walking import is_leftover

EVAL_SPLIT = "validation"
CLASS_KEYS = ("image/class/synset", "image/class/text")
"""Features with the class name of a record in the ImageNet layout; a label must have the same name in all records."""

_OPEN_FILES = 16


class TfRecordSource(StreamSource):
    """The records of some shards.

    Args:
        files: the shards, in order.
        layout: layout of a record.
        shuffle_buffer: number of records in the shuffle buffer. The order of the shards is also shuffled each epoch.

    Raises:
        DataError: if the first records of a shard do not have this layout.
    """

    def __init__(self, files: Sequence[TfRecordFile], layout: TfRecordLayout, shuffle_buffer: int) -> None:
        for file in files:
            for number, example in enumerate(file.first):
                layout.check(example, f"Record {number} of {file.path}")
        self.class_names, self.multi_label = layout.class_names, layout.multi_label
        self.num_examples = sum(file.num_records for file in files)
        self.shuffle_buffer = shuffle_buffer
        self.files, self._layout = tuple(files), layout
        self._paths = [os.fsencode(file.path) for file in files]
        self._starts = [0, *itertools.accumulate(file.num_records for file in files)][:-1]

    def extents(self) -> Sequence[Extent]:
        """See ``Source.extents``."""
        return [(file.path, range(file.num_records)) for file in self.files]

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``; checks every record against the layout."""

        def check(record: bytes, where: str) -> None:
            try:
                example = tf.train.Example.FromString(record)
            except Exception as error:
                raise DataError(f"{where} is not a tf.train.Example. Write the file again.") from error
            self._layout.check(example, where)

        return find_bad_record({file.path: file.num_records for file in self.files}, check)

    def read(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """See ``StreamSource.read``; with a seed the shards are shuffled and interleaved, otherwise read in order."""
        kinds = [file.compression for file in self.files]
        shards = tf.data.Dataset.from_tensor_slices((self._paths, kinds, tf.constant(self._starts, tf.int64)))

        def records(path: tf.Tensor, compression: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(path, compression, buffer_size=1 << 20).enumerate(start)

        if seed is None:
            return shards.flat_map(records)
        shards = shards.shuffle(len(kinds), seed=seed, reshuffle_each_iteration=False)
        return shards.interleave(
            records, cycle_length=_OPEN_FILES, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def parse(self, number: tf.Tensor, raw: tf.Tensor) -> Record:
        """See ``StreamSource.parse``."""
        layout = self._layout
        kind = tf.io.RaggedFeature(tf.int64) if self.multi_label else tf.io.FixedLenFeature([], tf.int64)
        features = {layout.image_key: tf.io.FixedLenFeature([], tf.string), layout.label_key: kind}
        record = tf.io.parse_single_example(raw, features)
        starts = tf.constant(self._starts, tf.int64)
        file = tf.searchsorted(starts, [number], side="right")[0] - 1
        place = tf.strings.as_string(number - tf.gather(starts, file))
        name = tf.strings.join(["record ", place, " of ", tf.gather(self._paths, file)])
        return {"image": record[layout.image_key], "label": record[layout.label_key] - layout.first_label, "name": name}

    def describe_wrong_label(self, label: int) -> str:
        """See ``Source.describe_wrong_label``; the message gives the label as stored in the record."""
        return self._layout.describe_wrong_label(label + self._layout.first_label)


def open_shards(root: pathlib.Path, split: str, pattern: str | None = None) -> list[TfRecordFile]:
    """Returns the shards ``NAME-*`` of a split, or those of a pattern, with their numbers of records.

    A share of a split is a share of its shards, in the order of their names.

    Args:
        root: folder of the shards.
        split: a split name or slice, such as ``train[2%:]``.
        pattern: pattern of the shards' paths relative to ``root``, such as ``train/*.tfrec``; it replaces the name.

    Raises:
        DataError: if there are no shards, some are missing, or one is empty or damaged.
    """
    part = parse_slice(split)
    every = find_shards(root, part.name, pattern)
    paths = part.of(every)
    if not paths:
        raise DataError(
            f"The split {split!r} has no shards, because it is less than half of one of {len(every)} shards. Choose a "
            "larger share."
        )
    with concurrent.futures.ThreadPoolExecutor(_OPEN_FILES) as pool:
        return list(pool.map(open_shard, paths))


def _check_class_order(files: Iterable[TfRecordFile], label_key: str) -> None:
    """Raises ``DataError`` if a label has one class name in some records and another one in others."""
    known: dict[tuple[str, int], tuple[bytes, str]] = {}
    for file in files:
        for example in file.first:
            features = example.features.feature
            for key in CLASS_KEYS:
                labels, names = features[label_key].int64_list.value, features[key].bytes_list.value
                if len(labels) != 1 or len(names) != 1:
                    continue
                name, where = known.setdefault((key, labels[0]), (names[0], file.path))
                if name != names[0]:
                    raise DataError(
                        f"Label {labels[0]} is {name.decode(errors='replace')!r} in {where}, but "
                        f"{names[0].decode(errors='replace')!r} in {file.path}: "
                        "the classes are numbered in a different order. Write both splits with the same list of "
                        "classes."
                    )


def _find_splits(root: pathlib.Path, data: config_lib.DataConfig) -> list[tuple[str, str | None]]:
    """Returns the splits to train and to evaluate on, ``NAME`` or ``NAME[a%:b%]``, each with its pattern or None."""
    shards = record_files([path for path in root.glob("*-*") if path.is_file() and not is_leftover(path.name)])
    names = {re.sub(r"-\d+(-of-\d+)?(\.\w+)*$", "", path.name) for path in shards}
    part, wanted = parse_slice(data.train_split), data.eval_split or EVAL_SPLIT
    train = part.name if data.train_pattern else find_train(names, data, str(root), prefer_plain=True) or part.name
    name = parse_slice(wanted).name
    if name == part.name:  # a share of the training split
        evaluation, pattern = train + wanted[len(name) :], data.train_pattern
    elif data.eval_split or data.eval_pattern:
        evaluation, pattern = wanted, data.eval_pattern
    else:
        evaluation = find_evaluation(names, str(root), exclude={train}, prefer_plain=True) or wanted
        pattern = None
    for chosen, setting, given in (
        (train, "data.train_pattern", data.train_pattern or part.name),
        (name if data.eval_split else evaluation, "data.eval_pattern", pattern or name),
    ):
        _check_numbered(names, chosen, setting, given)
    if not (data.train_pattern and pattern):
        announce(str(root), names, train, evaluation, chosen=bool(data.eval_split))
    return [(train + data.train_split[len(part.name) :], data.train_pattern), (evaluation, pattern)]


def _check_numbered(names: Iterable[str], chosen: str, setting: str, given: str) -> None:
    """Raises ``DataError`` if other files have the same name with another number, unless a setting names the split.

    For example, ``train00-*`` was found for ``train``, and there is ``train01-*``.
    """
    plain = re.sub(r"\d+", "*", chosen)
    alike = sorted(name for name in names if re.sub(r"\d+", "*", name) == plain)
    if chosen in alike and len(alike) > 1 and given != chosen:
        raise DataError(
            f"The files {chosen}-* may be one part of a split, because there are also "
            f"{', '.join(f'{name}-*' for name in alike if name != chosen)[:200]}. To use all of them, set "
            f"{setting}={plain}-*"
        )


def tfrecord_splits(data: config_lib.DataConfig) -> tuple[TfRecordSource, TfRecordSource]:
    """Returns the splits in the shards ``train-*`` and ``validation-*`` of the folder ``data.data_dir``.

    ``data.train_pattern`` and ``data.eval_pattern`` give other names, also in sub-folders. Shards may be compressed
    with gzip or zlib.

    Each record is a ``tf.train.Example`` with one image. The default layout is that of ImageNet in the reference code:
    ``image/encoded``, the bytes of an image file, and ``image/class/label``, an int64 that starts at 1. Other layouts
    are set with ``data.image_key``, ``data.label_key`` and ``data.first_label``. The class names are in ``labels.txt``
    in the same folder, one per line; without that file ``data.num_classes`` gives their number.

    Raises:
        DataAbsentError: if ``data.data_dir`` is not set.
        DataError: if the folder or shards are missing, also single ones of ``-of-N``, a shard is empty or damaged, a
            feature is missing, a label is out of range, or the order of the classes differs between the splits.
    """
    if not data.data_dir:
        raise DataAbsentError(
            "The tfrecord source needs a folder: give --data_dir=DIR with the shards DIR/"
            f"{parse_slice(data.train_split).name}-00000-of-01024 ... and DIR/"
            f"{parse_slice(data.eval_split or EVAL_SPLIT).name}-00000-of-00128 ... For ImageNet, imagenet_to_gcs.py of "
            "tensorflow/tpu writes them from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (register at "
            "https://image-net.org). You can also use class folders or TensorFlow Datasets: "
            "--hparam_str=data.source=folder or data.source=tfds"
        )
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(
            f"--data_dir={data.data_dir}: there is no such folder. Give the folder with the TFRecord shards."
        )
    layout = TfRecordLayout(
        class_names_of(root, data.num_classes),
        data.image_key or IMAGE_KEY,
        data.label_key or LABEL_KEY,
        data.first_label,
        data.multi_label,
    )
    train, evaluation = (
        TfRecordSource(open_shards(root, split, pattern), layout, data.shuffle_buffer)
        for split, pattern in _find_splits(root, data)
    )
    _check_class_order((*train.files, *evaluation.files), layout.label_key)
    logging.info(
        "%s: %d records in %d shards to train on, %d in %d to evaluate on.", root, train.num_examples,
        len(train.files), evaluation.num_examples, len(evaluation.files),
    )  # fmt: skip
    return train, evaluation
