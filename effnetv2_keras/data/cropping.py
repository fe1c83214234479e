"""How an image of any shape becomes a square, in training and in evaluation, by the name of the pipeline.

``"clean"`` keeps proportions and gives whole levels. The others are those of the reference code
(``efficientnetv2/preprocessing.py`` and ``preprocess_legacy.py``), which give fractions of levels:

==================  ==============================  ===================================  ========================
pipeline            training                        evaluation                           resized
==================  ==============================  ===================================  ========================
clean               random rectangle                central square                       bilinear, rounded
original_v2         random rectangle                below 320 px the central square,     bilinear
                                                    else the whole image, squeezed
original_v1         random rectangle; where ten     central square                       bicubic, TensorFlow 1's
                    tries find none, as evaluation
original_finetune   whole image, squeezed           whole image, squeezed                bilinear
==================  ==============================  ===================================  ========================

The central square has ``size / (size + 32)`` of the shorter side. All work in levels 0..255 and leave normalisation to
the network's own rule.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable

import tensorflow as tf

from effnetv2_keras.data import decode

Range = tuple[float, float]

SQUEEZE_FROM = 320
"""Size, pixels, from which ``original_v2`` evaluates whole images."""


@dataclasses.dataclass(frozen=True)
class Cropping:
    """One pipeline's way to squares.

    Attributes:
        train: takes ``image``, ``image_size``, ``area``, ``aspect`` and ``seed``, as ``decode.random_crop`` does.
        evaluate: takes ``image``, ``image_size`` and ``crop``, as ``decode.central_crop`` does.
        area: smallest and largest share of the image that training takes, if nothing else is asked for.
        aspect: smallest and largest width over height of it, likewise.
        dtype: of the squares: uint8, or float32 whose levels may be fractions and, with bicubic, leave 0..255.
    """

    train: Callable[..., tf.Tensor]
    evaluate: Callable[..., tf.Tensor]
    area: Range = (0.05, 1.0)
    aspect: Range = (0.75, 4 / 3)
    dtype: tf.DType = tf.float32


_reference_square = functools.partial(decode.central_square, dtype=tf.float32)


def _v2_train(image: tf.Tensor, *, image_size: int, area: Range, aspect: Range, seed: tf.Tensor) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return decode.random_rectangle(shape, area=area, aspect=aspect, seed=seed)

    return _bilinear(decode.cut(image, choose, decode_whole=True), image_size)


def _v2_evaluate(image: tf.Tensor, *, image_size: int, crop: float | None) -> tf.Tensor:
    if crop is None and image_size >= SQUEEZE_FROM:
        return _bilinear(decode.decode(image), image_size)
    return _bilinear_square(image, image_size, crop)


def _v1_train(image: tf.Tensor, *, image_size: int, area: Range, aspect: Range, seed: tf.Tensor) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        drawn = decode.random_rectangle(shape, area=area, aspect=aspect, covered=0.1, attempts=10, seed=seed)
        found = tf.reduce_any(drawn[2:] < shape[:2])
        return tf.where(found, drawn, _reference_square(shape, image_size, None, round_up=1))

    return _bicubic(decode.cut(image, choose), image_size)


def _v1_evaluate(image: tf.Tensor, *, image_size: int, crop: float | None) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return _reference_square(shape, image_size, crop, round_up=1)

    return _bicubic(decode.cut(image, choose), image_size)


def _finetune_train(image: tf.Tensor, *, image_size: int, area: Range, aspect: Range, seed: tf.Tensor) -> tf.Tensor:
    del area, aspect, seed  # refused by the configuration
    return _bilinear(decode.decode(image), image_size)


def _finetune_evaluate(image: tf.Tensor, *, image_size: int, crop: float | None) -> tf.Tensor:
    if crop is None:
        return _bilinear(decode.decode(image), image_size)
    return _bilinear_square(image, image_size, crop)


def _bilinear_square(image: tf.Tensor, image_size: int, crop: float | None) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return _reference_square(shape, image_size, crop)

    return _bilinear(decode.cut(image, choose, decode_whole=True), image_size)


def _bilinear(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes without antialiasing, float32 ``[size, size, 3]``."""
    return tf.image.resize(image, [size, size])


def _bicubic(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes as TensorFlow 1 did, float32 ``[size, size, 3]``.

    Pixels are taken to lie at their corners and the kernel has A = -0.75; ``tf.image.resize`` has them at their
    centres and A = -0.5. No antialiasing; levels may leave 0..255.
    """
    resized = tf.raw_ops.ResizeBicubic(images=image[tf.newaxis], size=[size, size], half_pixel_centers=False)
    return tf.ensure_shape(resized[0], [size, size, 3])


CROPPINGS: dict[str, Cropping] = {
    "clean": Cropping(decode.random_crop, decode.central_crop, dtype=tf.uint8),
    "original_v2": Cropping(_v2_train, _v2_evaluate, aspect=(0.75, 1.33)),
    "original_v1": Cropping(_v1_train, _v1_evaluate, area=(0.08, 1.0)),
    "original_finetune": Cropping(_finetune_train, _finetune_evaluate),
}
"""Each ``data.pipeline``."""
