"""How an image of any shape becomes a square in training and in evaluation, for each ``data.pipeline``.

``"clean"`` keeps the aspect ratio and returns whole levels. The other pipelines are those of the reference code
(``efficientnetv2/preprocessing.py`` and ``preprocess_legacy.py``), which return fractional levels:

==================  ==============================  ===================================  ========================
pipeline            training                        evaluation                           resized
==================  ==============================  ===================================  ========================
clean               random rectangle                central square                       bilinear, rounded
original_v2         random rectangle                below 320 px the central square,     bilinear
                                                    else the whole image, squeezed
original_v1         random rectangle; if ten tries  central square                       bicubic, TensorFlow 1's
                    find none, as in evaluation
original_finetune   whole image, squeezed           whole image, squeezed                bilinear
==================  ==============================  ===================================  ========================

The side of the central square is ``size / (size + 32)`` of the image's shorter side; ``clean`` never takes less than
at 224 px. All pipelines return levels
0..255; each network normalizes them by its own rule.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable

import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data import decode
from effnetv2_keras.data.formats import Reading

Range = tuple[float, float]

SQUEEZE_FROM = 320
"""Image size, pixels, from which ``original_v2`` evaluates whole images."""


@dataclasses.dataclass(frozen=True)
class Cropping:
    """How one pipeline makes square images.

    Attributes:
        train: takes ``image``, ``image_size``, ``area``, ``aspect`` and ``seed``, and as an option ``reading``, as
            ``decode.random_crop`` does.
        evaluate: takes ``image``, ``image_size`` and ``crop``, and as an option ``reading``, as
            ``decode.central_crop`` does.
        area: default smallest and largest fraction of the image's area that a training crop covers.
        aspect: default smallest and largest width / height of a training crop.
        dtype: dtype of the squares: uint8, or float32 with fractional levels (with bicubic also outside 0..255).
    """

    train: Callable[..., tf.Tensor]
    evaluate: Callable[..., tf.Tensor]
    area: Range = (0.05, 1.0)
    aspect: Range = (0.75, 4 / 3)
    dtype: tf.DType = tf.float32


_PLAIN = Reading()
_reference_square = functools.partial(decode.central_square, dtype=tf.float32)


def _v2_train(
    image: tf.Tensor,
    *,
    image_size: tf.Tensor | int,
    area: Range,
    aspect: Range,
    seed: tf.Tensor,
    reading: Reading = _PLAIN,
) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return decode.random_rectangle(shape, area=area, aspect=aspect, seed=seed)

    return _bilinear(decode.cut(image, choose, decode_whole=True, reading=reading), image_size)


def _v2_evaluate(image: tf.Tensor, *, image_size: int, crop: float | None, reading: Reading = _PLAIN) -> tf.Tensor:
    if crop is None and image_size >= SQUEEZE_FROM:
        return _bilinear(decode.decode(image, reading), image_size)
    return _bilinear_square(image, image_size, crop, reading)


def _v1_train(
    image: tf.Tensor,
    *,
    image_size: tf.Tensor | int,
    area: Range,
    aspect: Range,
    seed: tf.Tensor,
    reading: Reading = _PLAIN,
) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        drawn = decode.random_rectangle(shape, area=area, aspect=aspect, covered=0.1, attempts=10, seed=seed)
        found = tf.reduce_any(drawn[2:] < shape[:2])
        return tf.where(found, drawn, _reference_square(shape, image_size, None, round_up=1))

    return _bicubic(decode.cut(image, choose, reading=reading), image_size)


def _v1_evaluate(image: tf.Tensor, *, image_size: int, crop: float | None, reading: Reading = _PLAIN) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return _reference_square(shape, image_size, crop, round_up=1)

    return _bicubic(decode.cut(image, choose, reading=reading), image_size)


def _finetune_train(
    image: tf.Tensor,
    *,
    image_size: tf.Tensor | int,
    area: Range,
    aspect: Range,
    seed: tf.Tensor,
    reading: Reading = _PLAIN,
) -> tf.Tensor:
    del area, aspect, seed  # the configuration rejects these settings for this pipeline
    return _bilinear(decode.decode(image, reading), image_size)


def _finetune_evaluate(
    image: tf.Tensor, *, image_size: int, crop: float | None, reading: Reading = _PLAIN
) -> tf.Tensor:
    if crop is None:
        return _bilinear(decode.decode(image, reading), image_size)
    return _bilinear_square(image, image_size, crop, reading)


def _bilinear_square(image: tf.Tensor, image_size: int, crop: float | None, reading: Reading) -> tf.Tensor:
    def choose(shape: tf.Tensor) -> tf.Tensor:
        return _reference_square(shape, image_size, crop)

    return _bilinear(decode.cut(image, choose, decode_whole=True, reading=reading), image_size)


def evaluated_share(data: DataConfig, image_size: int) -> float:
    """Returns the side of the square that ``Cropping.evaluate`` shows as a share of the image's shorter side.

    Args:
        data: data settings.
        image_size: side of the result, pixels.

    Returns:
        A number in (0, 1]; 1 also where the whole image is squeezed into a square.
    """
    if data.eval_crop is not None:
        return data.eval_crop
    if data.pipeline == "original_finetune" or (data.pipeline == "original_v2" and image_size >= SQUEEZE_FROM):
        return 1.0
    if data.pipeline == "clean":
        return decode.default_share(image_size)
    return image_size / (image_size + decode.EVAL_MARGIN)


def _bilinear(image: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
    """Resizes without antialiasing to float32 ``[size, size, 3]``."""
    return tf.image.resize(image, [size, size])


def _bicubic(image: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
    """Resizes as TensorFlow 1 does, to float32 ``[size, size, 3]``.

    This kernel samples pixels at their corners and has A = -0.75; ``tf.image.resize`` samples them at their centers
    and has A = -0.5. There is no antialiasing, and levels may lie outside 0..255.
    """
    resized = tf.raw_ops.ResizeBicubic(images=image[tf.newaxis], size=[size, size], half_pixel_centers=False)
    return tf.ensure_shape(resized[0], [None, None, 3])


CROPPINGS: dict[str, Cropping] = {
    "clean": Cropping(decode.random_crop, decode.central_crop, dtype=tf.uint8),
    "original_v2": Cropping(_v2_train, _v2_evaluate, aspect=(0.75, 1.33)),
    "original_v1": Cropping(_v1_train, _v1_evaluate, area=(0.08, 1.0)),
    "original_finetune": Cropping(_finetune_train, _finetune_evaluate),
}
"""The cropping for each ``data.pipeline``."""
