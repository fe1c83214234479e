"""TFRecord shards of encoded images, in the layout of the reference code or another one."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf
from absl import logging

from effnetv2_keras import config as config_lib
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, Extent, Record, StreamSource
from effnetv2_keras.data.sources.integrity import find_bad_record
from effnetv2_keras.data.sources.labels import class_names_of
from effnetv2_keras.data.sources.slices import parse_slice

EVAL_SPLIT = "validation"
IMAGE_KEY, LABEL_KEY = "image/encoded", "image/class/label"
CLASS_KEYS = ("image/class/synset", "image/class/text")
"""Features that name the class of a record, in the layout of ImageNet: they must go with the same label everywhere."""

_LOOK_AT = 4  # records of each shard whose features are checked before anything is trained
_OPEN_FILES = 16


@dataclasses.dataclass(frozen=True)
class TfRecordLayout:
    """How a record holds an image and its labels.

    Attributes:
        class_names: in label order.
        image_key: feature with the encoded image, one bytes value.
        label_key: feature with the label, one int64, or any number of them if ``multi_label``.
        first_label: the number that stands for the first class.
        multi_label: whether a record may have several labels, or none.
    """

    class_names: tuple[str, ...]
    image_key: str = IMAGE_KEY
    label_key: str = LABEL_KEY
    first_label: int = 1
    multi_label: bool = False

    def describe_wrong_label(self, label: int) -> str:
        """Says which label a record has, which ones it may have, and what to do."""
        last = self.first_label + len(self.class_names) - 1
        return (
            f"has the label {label}, but {len(self.class_names)} classes that begin at data.first_label="
            f"{self.first_label} end at {last}. Set data.first_label (0 or 1) and data.num_classes, or repair the "
            "records."
        )

    def check(self, example: tf.train.Example, where: str) -> None:
        """Makes sure that a record is what the layout says.

        Raises:
            DataError: if a feature is missing, of another kind, or the label out of range.
        """
        features = example.features.feature
        for key, kind, setting in (
            (self.image_key, "bytes_list", "data.image_key"),
            (self.label_key, "int64_list", "data.label_key"),
        ):
            found = features[key].WhichOneof("kind") if key in features else None
            if found != kind and not (key in features and self.multi_label and found is None):
                raise DataError(
                    f"{where} has {f'{key!r} as {found}' if key in features else f'no feature {key!r}'}, but {kind} is "
                    f"needed; its features are {', '.join(sorted(features))}. Name the right one with {setting}."
                )
        labels = features[self.label_key].int64_list.value
        if not self.multi_label and len(labels) != 1:
            raise DataError(
                f"{where} has {len(labels)} labels, but one is expected; if images have several, set "
                "data.multi_label=true"
            )
        for label in labels:
            if not 0 <= label - self.first_label < len(self.class_names):
                raise DataError(f"{where} {self.describe_wrong_label(label)}")


@dataclasses.dataclass(frozen=True)
class TfRecordFile:
    """One shard.

    Attributes:
        path: of the file.
        num_records: how many it holds.
        first: its first records.
    """

    path: str
    num_records: int
    first: tuple[tf.train.Example, ...]


class TfRecordSource(StreamSource):
    """Records of some shards.

    Args:
        files: the shards, in order.
        layout: of a record.
        shuffle_buffer: records held for shuffling. Each epoch also reads the shards in an order of its own.

    Raises:
        DataError: if the first records of a shard are not as ``layout`` says.
    """

    def __init__(self, files: Sequence[TfRecordFile], layout: TfRecordLayout, shuffle_buffer: int) -> None:
        for file in files:
            for number, example in enumerate(file.first):
                layout.check(example, f"Record {number} of {file.path}")
        self.class_names, self.multi_label = layout.class_names, layout.multi_label
        self.num_examples = sum(file.num_records for file in files)
        self.shuffle_buffer = shuffle_buffer
        self.files, self._layout = tuple(files), layout
        self._starts = [0, *itertools.accumulate(file.num_records for file in files)][:-1]

    def extents(self) -> Sequence[Extent]:
        """See ``Source.extents``."""
        return [(file.path, range(file.num_records)) for file in self.files]

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``; every record is held against the layout."""

        def check(record: bytes, where: str) -> None:
            try:
                example = tf.train.Example.FromString(record)
            except Exception as error:
                raise DataError(f"{where} is no tf.train.Example. Write the file again.") from error
            self._layout.check(example, where)

        return find_bad_record({file.path: file.num_records for file in self.files}, check)

    def read(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """See ``StreamSource.read``; a seed mixes the shards, without one they follow each other."""
        paths = [file.path for file in self.files]
        shards = tf.data.Dataset.from_tensor_slices((paths, tf.constant(self._starts, tf.int64)))

        def records(path: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(path, buffer_size=1 << 20).enumerate(start)

        if seed is None:
            return shards.flat_map(records)
        shards = shards.shuffle(len(paths), seed=seed, reshuffle_each_iteration=False)
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
        name = tf.strings.join(["record ", place, " of ", tf.gather([file.path for file in self.files], file)])
        return {"image": record[layout.image_key], "label": record[layout.label_key] - layout.first_label, "name": name}

    def describe_wrong_label(self, label: int) -> str:
        """See ``Source.describe_wrong_label``; the label as the record has it."""
        return self._layout.describe_wrong_label(label + self._layout.first_label)


def open_shards(root: pathlib.Path, split: str) -> list[TfRecordFile]:
    """Finds and counts the shards ``NAME-*`` of a split; a share of a split is a share of its shards, in name order.

    Args:
        root: their folder.
        split: a name or slice, such as ``train[2%:]``.

    Raises:
        DataError: if there are none, or one is empty or damaged.
    """
    part = parse_slice(split)
    every = sorted(str(path) for path in root.glob(f"{part.name}-*") if path.is_file())
    if not every:
        others = sorted({path.name.partition("-")[0] for path in root.glob("*-*-of-*")})
        raise DataError(
            f"{root} has no files {part.name}-*; "
            + (f"it has {', '.join(f'{name}-*' for name in others)}. " if others else "")
            + f"Put the TFRecord shards there, as {part.name}-00000-of-01024 and so on, or name another split."
        )
    paths = part.of(every)
    if not paths:
        raise DataError(f"{split!r} is less than half of one of {len(every)} shards; name a larger share.")
    with concurrent.futures.ThreadPoolExecutor(_OPEN_FILES) as pool:
        return list(pool.map(_open_shard, paths))


def _open_shard(path: str) -> TfRecordFile:
    """Counts the records of a file and reads the first; of the others only their lengths are read."""
    count, first = 0, []
    try:
        for record in _records(path, _LOOK_AT):
            count += 1
            if record is not None:
                first.append(tf.train.Example.FromString(record))
    except Exception as error:
        raise DataError(
            f"{path} is no complete TFRecord file of tf.train.Example: it breaks off or goes wrong at record {count}. "
            "Write or copy it again."
        ) from error
    if not count:
        raise DataError(f"The shard {path} is empty. Write or copy it again, or remove it if it should be so.")
    return TfRecordFile(path, count, tuple(first))


def _records(path: str, num_contents: int) -> Iterator[bytes | None]:
    """Walks over the records of a file: the contents of the first few, then None for each of the others.

    A record is its length (uint64, little endian), a checksum of that (4 bytes), its contents, and a checksum of them
    (4 bytes) (TensorFlow, ``lib/io/record_writer.h``).
    """
    size, position = os.path.getsize(path), 0
    with open(path, "rb", buffering=0) as file:
        while position < size:
            (length,) = struct.unpack("<Q", os.pread(file.fileno(), 8, position))
            if position + length + 16 > size:
                raise EOFError
            yield os.pread(file.fileno(), length, position + 12) if num_contents > 0 else None
            position, num_contents = position + length + 16, num_contents - 1


def _check_class_order(files: Iterable[TfRecordFile], label_key: str) -> None:
    """Raises ``DataError`` if a label stands for one class in some records and for another one in others."""
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
                        f"Label {labels[0]} is {name.decode()!r} in {where} but {names[0].decode()!r} in {file.path}: "
                        "the classes are numbered in another order. Write both splits with one list of classes."
                    )


def tfrecord_splits(data: config_lib.DataConfig) -> tuple[TfRecordSource, TfRecordSource]:
    """Shards ``train-*`` and ``validation-*`` in ``data.data_dir``, one ``tf.train.Example`` an image.

    The layout of ImageNet in the reference code: ``image/encoded``, the bytes of an image file, and
    ``image/class/label``, an int64 from 1 on; ``data.image_key``, ``data.label_key`` and ``data.first_label`` name
    others. Classes are named by ``labels.txt`` in the same folder, one a line, or counted by ``data.num_classes``.

    Raises:
        DataError: if the folder or shards are missing, a shard is empty or damaged, a feature is missing, a label out
            of range, or the classes are in another order in one of the splits.
    """
    if not data.data_dir:
        raise DataAbsentError(
            "The tfrecord source needs a folder: give --data_dir=DIR with the shards DIR/"
            f"{parse_slice(data.train_split).name}-00000-of-01024 ... and DIR/"
            f"{parse_slice(data.eval_split or EVAL_SPLIT).name}-00000-of-00128 ... ImageNet is written so by "
            "imagenet_to_gcs.py of tensorflow/tpu from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (register "
            "at https://image-net.org). Class folders and TensorFlow Datasets serve too: "
            "--hparam_str=data.source=folder or data.source=tfds"
        )
    root = pathlib.Path(data.data_dir)
    if not root.is_dir():
        raise DataError(f"--data_dir={data.data_dir}: there is no such folder.")
    layout = TfRecordLayout(
        class_names_of(root, data.num_classes),
        data.image_key or IMAGE_KEY,
        data.label_key or LABEL_KEY,
        data.first_label,
        data.multi_label,
    )
    splits = [
        TfRecordSource(open_shards(root, split), layout, data.shuffle_buffer)
        for split in (data.train_split, data.eval_split or EVAL_SPLIT)
    ]
    train, evaluation = splits
    _check_class_order((*train.files, *evaluation.files), layout.label_key)
    logging.info(
        "%s: %d records in %d shards to train on, %d in %d to evaluate on.", root, train.num_examples,
        len(train.files), evaluation.num_examples, len(evaluation.files),
    )  # fmt: skip
    return train, evaluation
