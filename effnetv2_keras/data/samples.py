"""A few images of a source, cropped as in evaluation: for quantization and for the report."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.loading import Batch, evaluation_image, plain_graph
from effnetv2_keras.data.sources.base import Record, Shard, Source
from effnetv2_keras.data.sources.labels import label_vector
from effnetv2_keras.data.unreadable import guard_label, is_sound


def sample_images(source: Source, data: DataConfig, *, image_size: int, count: int) -> tf.data.Dataset:
    """Draws random images of a source, cropped as in evaluation; the same images in the same order in every call.

    Args:
        source: the images and labels.
        data: the data settings.
        image_size: side of the square images, pixels.
        count: largest number of images. There are fewer if the source is smaller or images cannot be decoded.

    Returns:
        A dataset of uint8 ``[S, S, 3]``; fractional levels are rounded.
    """
    samples = _samples(source, data, image_size=image_size, count=count)
    readable = samples.filter(plain_graph(lambda sample: is_sound(sample["image_problem"])))
    return readable.map(plain_graph(lambda sample: sample["image"]))


def sample_records(source: Source, data: DataConfig, *, image_size: int, count: int) -> tf.data.Dataset:
    """Draws the same images as ``sample_images`` with their labels; images with an invalid label are left out.

    Returns:
        A dataset of ``image``, uint8 ``[S, S, 3]``, and ``label``, float32 ``[classes]``, one-hot or multi-hot.
    """
    samples = _samples(source, data, image_size=image_size, count=count)
    sound = samples.filter(plain_graph(lambda sample: is_sound(sample["problem"])))
    return sound.map(plain_graph(lambda sample: {name: sample[name] for name in ("image", "label")}))


def _samples(source: Source, data: DataConfig, *, image_size: int, count: int) -> tf.data.Dataset:
    """Returns a dataset of ``image``, ``label``, ``image_problem`` (image only) and ``problem`` (image or label)."""
    count = min(count, source.num_examples)
    records = source.stream(seed=0, batch_size=count, steps=range(1), shard=Shard())
    load_image = evaluation_image(source, data, image_size)

    @plain_graph
    def load(record: Record) -> Batch:
        image, image_problem = load_image(record)
        label, problem = guard_label(record, len(source.class_names), image_problem)
        label = label_vector(label, len(source.class_names))
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        return {"image": image, "label": label, "image_problem": image_problem, "problem": problem}

    return records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
