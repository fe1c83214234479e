"""From a record to an example: the image, cropped and augmented, its label and its weight.

A graph is traced once and used by all stages, runs and evaluations of a process with the same settings: image size,
seed and strength of the augmentation are its arguments.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.augment import augmentation
from effnetv2_keras.data.augment.augmentation import Augmentation
from effnetv2_keras.data.cropping import CROPPINGS, Range
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.data.sources.base import Record, Source
from effnetv2_keras.data.sources.labels import label_vector
from effnetv2_keras.data.unreadable import guard, guard_label, is_sound
from effnetv2_keras.progressive import Stage

Batch = dict[str, tf.Tensor]

# The functions use graph ops only. Skipping AutoGraph's conversion makes the input of a stage ready much sooner.
plain_graph = tf.autograph.experimental.do_not_convert

# Separate random streams, so that choices per image and choices per batch never share random numbers.
_PER_IMAGE, PER_BATCH = 1, 2

_GRAPHS = 16  # to keep


def training_example(source: Source, data: DataConfig, *, stage: Stage, seed: int) -> Callable[[Record], Batch]:
    """Returns the function from a record to ``image``, ``label``, ``weight`` and ``problem``, before mixing.

    Args:
        source: the source of the records.
        data: data settings.
        stage: image size and strength of the augmentation.
        seed: seed of the run.
    """
    cropping = CROPPINGS[data.pipeline]
    change = Augmentation(data.augment, data.augment_arithmetic, data.ra_num_layers)
    load = _training_graph(
        data.pipeline,
        data.crop_area or cropping.area,
        data.crop_aspect or cropping.aspect,
        data.hflip,
        change,
        data.cutout,
        Reading.of(data, service=bool(data.service)),
        source.verified,
        len(source.class_names),
    )
    image_seed = tf.constant([seed, _PER_IMAGE], tf.int32)
    size, strengths = tf.constant(stage.image_size), change.strengths_at(stage.randaug_magnitude)

    @plain_graph
    def example(record: Record) -> Batch:
        loaded = load(record, size, strengths, image_seed)
        return {**loaded, "image": tf.ensure_shape(loaded["image"], [stage.image_size, stage.image_size, 3])}

    return example


@functools.lru_cache(_GRAPHS)
def _training_graph(
    pipeline: str,
    area: Range,
    aspect: Range,
    hflip: bool,
    change: Augmentation,
    cutout: bool,
    reading: Reading,
    verified: bool,
    num_classes: int,
) -> Any:
    def load(record: Record, size: tf.Tensor, strengths: tf.Tensor | None, image_seed: tf.Tensor) -> Batch:
        own_seed = tf.random.experimental.stateless_fold_in(image_seed, record["epoch"])
        own_seed = tf.random.experimental.stateless_fold_in(own_seed, record["index"])
        crop_seed, flip_seed, change_seed, cutout_seed = tf.unstack(tf.random.experimental.stateless_split(own_seed, 4))
        crop = functools.partial(
            CROPPINGS[pipeline].train, image_size=size, area=area, aspect=aspect, seed=crop_seed, reading=reading
        )
        image, problem = guard(lambda item: crop(item["image"]), record, [size, size, 3], reading, verified=verified)
        if hflip:
            image = tf.image.stateless_random_flip_left_right(image, flip_seed)
        image = change(image, seed=change_seed, strengths=strengths)
        if cutout:
            image = augmentation.noise_cutout(image, arithmetic=change.arithmetic, seed=cutout_seed)
        label, problem = guard_label(record, num_classes, problem)
        weight = tf.cast(is_sound(problem), tf.float32)
        return {
            "image": image,
            "label": label_vector(label, num_classes) * weight,
            "weight": weight,
            "problem": problem,
        }

    return tf.function(load, autograph=False)


def evaluation_image(
    source: Source, data: DataConfig, image_size: int
) -> Callable[[Record], tuple[tf.Tensor, tf.Tensor]]:
    """Returns the function from a record to its square image, cropped as in evaluation, and its ``problem``.

    Args:
        source: the source of the records.
        data: data settings.
        image_size: side of the square, pixels.
    """
    return _evaluation_graph(data.pipeline, data.eval_crop, Reading.of(data), source.verified, image_size)


@functools.lru_cache(_GRAPHS)
def _evaluation_graph(pipeline: str, crop: float | None, reading: Reading, verified: bool, image_size: int) -> Any:
    evaluate = functools.partial(CROPPINGS[pipeline].evaluate, image_size=image_size, crop=crop, reading=reading)

    def load(record: Record) -> tuple[tf.Tensor, tf.Tensor]:
        shape = [image_size, image_size, 3]
        return guard(lambda item: evaluate(item["image"]), record, shape, reading, verified=verified)

    return tf.function(load, autograph=False)
