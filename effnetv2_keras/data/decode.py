"""Decoding and cropping: from the bytes of a file, or an image in memory, to a uint8 RGB image of a given size."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from effnetv2_keras.data import formats, orientation
from effnetv2_keras.data.formats import Reading

EVAL_MARGIN = 32
"""The evaluation crop is ``size / (size + EVAL_MARGIN)`` of the image's shorter side (reference code)."""

LEAST_SIZE = 224
"""Images smaller than this, pixels, are evaluated on the same share of the side as images of this size."""


_PLAIN = Reading()


def decode(encoded: tf.Tensor, reading: Reading = _PLAIN) -> tf.Tensor:
    """Returns a whole image, decoded to RGB.

    Args:
        encoded: string scalar, the bytes of an image file in one of the formats of ``formats``; or a decoded image,
            uint8 ``[H, W, C]``. Of a file with several images, the first is decoded. The gray channel of images with
            one or two channels is repeated; transparency is dropped.
        reading: how files are read.

    Returns:
        The image, uint8 ``[H, W, 3]``.

    Raises:
        ValueError: if the tensor has another dtype or rank.
        tf.errors.InvalidArgumentError: when the graph runs, if the bytes are not a complete image or are refused.
    """
    encoded = _checked(encoded)
    return _to_rgb(encoded) if encoded.dtype == tf.uint8 else formats.to_rgb(encoded, reading)


def random_crop(
    image: tf.Tensor,
    *,
    image_size: tf.Tensor | int,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 4 / 3),
    seed: tf.Tensor,
    reading: Reading = _PLAIN,
) -> tf.Tensor:
    """Returns a random rectangle of an image, resized to a square, for training.

    Of a JPEG file, only the rectangle is decoded. If 100 tries find no rectangle that fits, the whole image is used
    (reference code).

    Args:
        image: an encoded or decoded image, as for ``decode``.
        image_size: side of the result, pixels.
        area: smallest and largest fraction of the image's area, in (0, 1].
        aspect: smallest and largest width / height.
        seed: int32 ``[2]``; the result depends only on the seed and the image.
        reading: how files are read.

    Returns:
        The crop, resized bilinearly, uint8 ``[image_size, image_size, 3]``.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: see ``decode``.
    """

    def choose(shape: tf.Tensor) -> tf.Tensor:
        return random_rectangle(shape, area=area, aspect=aspect, seed=seed)

    return _resize(cut(image, choose, reading=reading), image_size)


def random_rectangle(
    shape: tf.Tensor,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    covered: float = 0.0,
    attempts: int = 100,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Returns a random rectangle in an image.

    Args:
        shape: shape of the image, int32 ``[3]``.
        area: smallest and largest fraction of the image's area, in (0, 1].
        aspect: smallest and largest width / height.
        covered: smallest fraction of the image that the rectangle must contain.
        attempts: number of tries; if all fail, the rectangle is the whole image.
        seed: int32 ``[2]``.

    Returns:
        Top, left, height and width of the rectangle, pixels, int32 ``[4]``.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=seed,
        min_object_covered=covered,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=attempts,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def central_crop(
    image: tf.Tensor, *, image_size: int, crop: float | None = None, reading: Reading = _PLAIN
) -> tf.Tensor:
    """Returns the central square of an image, resized, for evaluation.

    Args:
        image: an encoded or decoded image, as for ``decode``.
        image_size: side of the result, pixels.
        crop: side of the square / shorter side of the image, in (0, 1]; None for ``image_size / (image_size + 32)``
            (reference code), but at least 0.875, which this is at 224 px: smaller images would lose up to half of the
            side. From a size of 320 the reference code squeezes the whole image into a square instead; this function
            always keeps the aspect ratio.
        reading: how files are read.

    Returns:
        The crop, resized bilinearly, uint8 ``[image_size, image_size, 3]``.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: see ``decode``.
    """
    if crop is None:
        crop = default_share(image_size)
    return _resize(cut(image, lambda shape: central_square(shape, image_size, crop), reading=reading), image_size)


def default_share(image_size: int) -> float:
    """Returns the ``crop`` of ``central_crop`` for an image size in pixels, if none is given."""
    return max(image_size, LEAST_SIZE) / (max(image_size, LEAST_SIZE) + EVAL_MARGIN)


def central_square(
    shape: tf.Tensor,
    image_size: tf.Tensor | int,
    crop: float | None,
    *,
    dtype: tf.DType = tf.float64,
    round_up: int = 0,
) -> tf.Tensor:
    """Returns the central square to evaluate on: top, left, height and width, int32 ``[4]``.

    Args:
        shape: of the image, int32 ``[3]``.
        image_size: side to which the square will be resized, pixels.
        crop: side of the square / shorter side of the image; None for ``image_size / (image_size + 32)``.
        dtype: float64 computes the exact side; float32 rounds as the reference code does.
        round_up: 1 puts the square one pixel further down and right where it cannot be centered (reference code, V1).
    """
    share = image_size / (image_size + EVAL_MARGIN) if crop is None else crop
    side = tf.cast(tf.reduce_min(shape[:2]), dtype) * tf.cast(share, dtype)
    if dtype == tf.float64:
        side += 1e-6  # corrects rounding: in floating point, 100 * 0.29 is slightly less than 29
    side = tf.maximum(tf.cast(side, tf.int32), 1)
    return tf.concat([(shape[:2] - side + round_up) // 2, [side, side]], axis=0)


def cut(
    image: tf.Tensor,
    choose: Callable[[tf.Tensor], tf.Tensor],
    *,
    decode_whole: bool = False,
    reading: Reading = _PLAIN,
) -> tf.Tensor:
    """Returns the rectangle of an image that ``choose`` selects.

    Args:
        image: an encoded or decoded image, as for ``decode``.
        choose: maps the shape of the upright image, int32 ``[3]``, to the rectangle in it: top, left, height, width,
            int32 ``[4]``.
        decode_whole: whether to decode the whole of a JPEG file instead of the rectangle only. This is slower. If only
            the rectangle is decoded, colors near its edge differ slightly.
        reading: how files are read.

    Returns:
        The rectangle, uint8 ``[h, w, 3]``.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: see ``decode``.
    """
    image = _checked(image)

    def cut_decoded() -> tf.Tensor:
        decoded = decode(image, reading)
        top, left, height, width = tf.unstack(choose(tf.shape(decoded)))
        return decoded[top : top + height, left : left + width]

    def cut_jpeg() -> tf.Tensor:
        return tf.image.decode_and_crop_jpeg(image, choose(tf.image.extract_jpeg_shape(image)), channels=3)

    def cut_turned_jpeg() -> tf.Tensor:
        shape, turn = tf.image.extract_jpeg_shape(image), orientation.orientation_of(image)
        rectangle = orientation.stored_rectangle(choose(orientation.exchanged(shape, turn)), shape, turn)
        return orientation.upright(tf.image.decode_and_crop_jpeg(image, rectangle, channels=3), turn)

    def cut_any_jpeg() -> tf.Tensor:
        if not reading.exif_orientation:
            return cut_jpeg()
        return tf.cond(orientation.may_be_turned(image), formats.one_op(cut_turned_jpeg), cut_jpeg)

    if image.dtype == tf.uint8 or decode_whole:
        return cut_decoded()
    return tf.cond(tf.io.is_jpeg(image), cut_any_jpeg, formats.one_op(cut_decoded))


def _checked(image: tf.Tensor) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if (image.dtype, image.shape.rank) not in ((tf.string, 0), (tf.uint8, 3)):
        raise ValueError(
            f"Cannot decode a tensor of type {image.dtype.name} and shape {image.shape}. Pass the bytes of one image "
            "file (a string scalar) or a uint8 image [height, width, channels]."
        )
    return image


def _resize(image: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
    """Resizes bilinearly without antialiasing (reference code) and rounds to uint8 ``[size, size, 3]``."""
    return tf.cast(tf.round(tf.image.resize(image, [size, size])), tf.uint8)


def _to_rgb(image: tf.Tensor) -> tf.Tensor:
    """Repeats the first channel if there are one or two; keeps the first three channels if there are more."""
    if image.shape[-1] == 3:
        return image
    has_colour = tf.cast(tf.shape(image)[-1] >= 3, tf.int32)
    return tf.gather(image, tf.range(3) * has_colour, axis=-1)
