"""Image operations that move or cover pixels: rotate, shear, translate, cutout.

Images are uint8 ``[H, W, 3]`` and keep their size. Pixels from outside the image are gray (128). Amounts are degrees
or fractions of the image size, not pixels, so that a strength has the same effect at every image size.
"""

from __future__ import annotations

import math
from typing import Callable

import tensorflow as tf

FILL = 128
"""Gray level of uncovered pixels (reference code, ``replace_value``)."""


def rotate(image: tf.Tensor, degrees: tf.Tensor | float) -> tf.Tensor:
    """Turns the image counterclockwise about its center, nearest neighbor."""
    radians = degrees * (math.pi / 180.0)
    cos, sin = tf.cos(radians), tf.sin(radians)
    return _warp(image, cos, -sin, sin, cos)


def shear_x(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each row left by ``slope`` times its distance below the center, nearest neighbor."""
    return _warp(image, 1.0, slope, 0.0, 1.0)


def shear_y(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each column up by ``slope`` times its distance right of the center, nearest neighbor."""
    return _warp(image, 1.0, 0.0, slope, 1.0)


def translate_x(image: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Moves the image left by ``share`` of its width, rounded to whole pixels."""
    return _translate(image, rows=0, columns=_pixels(share, tf.shape(image)[1]))


def translate_y(image: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Moves the image up by ``share`` of its height, rounded to whole pixels."""
    return _translate(image, rows=_pixels(share, tf.shape(image)[0]), columns=0)


def cutout(image: tf.Tensor, share: tf.Tensor | float, place: tf.Tensor) -> tf.Tensor:
    """Returns the image with a square covered in gray.

    Args:
        image: uint8 ``[H, W, 3]``.
        share: side of the square, as a fraction of the shorter side of the image.
        place: center of the square, float32 ``[2]`` in [0, 1); see ``cover``.

    Returns:
        The image, uint8 ``[H, W, 3]``.
    """
    return cover(image, _pixels(share, tf.reduce_min(tf.shape(image)[:2])), place)


def cover(
    image: tf.Tensor,
    side: tf.Tensor | int,
    place: tf.Tensor,
    make_patch: Callable[[tf.Tensor], tf.Tensor] = lambda shape: tf.fill(shape, tf.constant(FILL, tf.uint8)),
) -> tf.Tensor:
    """Returns the image with a square replaced by a patch, clipped at the border.

    Args:
        image: ``[H, W, 3]``.
        side: side of the square, pixels.
        place: center of the square, float32 ``[2]`` in [0, 1), as fractions of height and width.
        make_patch: maps the shape of the covered part, int32 ``[3]``, to the patch, which has that shape and the
            image's dtype. The default patch is gray.

    Returns:
        The image, ``[H, W, 3]``, of the dtype of ``image``.
    """
    size = tf.shape(image)[:2]
    centre = tf.cast(place * tf.cast(size, tf.float32), tf.int32)
    start, end = centred_span(centre, side, size)
    (top, left), (bottom, right) = tf.unstack(start), tf.unstack(end)
    patch = make_patch(tf.stack([bottom - top, right - left, 3]))
    band = tf.concat([image[top:bottom, :left], patch, image[top:bottom, right:]], axis=1)
    return tf.concat([image[:top], band, image[bottom:]], axis=0)


def centred_span(centre: tf.Tensor, length: tf.Tensor, limit: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the part of a span of ``length`` pixels around ``centre`` that lies in ``[0, limit)``; all are int32.

    Returns:
        The first pixel of the part, and the pixel after its last one.
    """
    start = centre - length // 2
    return tf.maximum(start, 0), tf.minimum(start + length, limit)


def _pixels(share: tf.Tensor | float, side: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(share * tf.cast(side, tf.float32)), tf.int32)


def _translate(image: tf.Tensor, *, rows: tf.Tensor | int, columns: tf.Tensor | int) -> tf.Tensor:
    """Returns the image whose pixel ``(y, x)`` comes from ``(y + rows, x + columns)``.

    Padding and slicing are far cheaper than a warp.
    """
    flat = tf.reshape(image, [tf.shape(image)[0], -1])  # padding [H, 3 W] is cheaper than [H, W, 3]
    shift = tf.stack([rows, 3 * columns])
    before, after = tf.maximum(-shift, 0), tf.maximum(shift, 0)
    padded = tf.pad(flat, tf.stack([before, after], axis=1), constant_values=FILL)
    return tf.reshape(tf.slice(padded, after, tf.shape(flat)), tf.shape(image))


def _warp(image: tf.Tensor, xx: tf.Tensor, xy: tf.Tensor, yx: tf.Tensor, yy: tf.Tensor) -> tf.Tensor:
    """Returns the image whose pixel ``(x, y)`` is the input pixel nearest to ``(xx * x + xy * y, yx * x + yy * y)``.

    Coordinates count from the center. The warp gathers whole pixels, which takes a third of the time of
    ``ImageProjectiveTransformV3``. The image is framed by one gray pixel, and coordinates outside the image are
    clipped to that frame.
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x_centre, y_centre = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    x, y = tf.range(width) - x_centre, tf.range(height) - y_centre
    # The offset 1.5 is 1 for the frame and 0.5 to round, because the casts truncate.
    x_source = (xx * x + (x_centre + 1.5))[tf.newaxis, :] + (xy * y)[:, tf.newaxis]
    y_source = (yx * x + (y_centre + 1.5))[tf.newaxis, :] + (yy * y)[:, tf.newaxis]
    column = tf.cast(tf.clip_by_value(x_source, 0.0, width + 1.0), tf.int32)
    row = tf.cast(tf.clip_by_value(y_source, 0.0, height + 1.0), tf.int32)
    framed = tf.pad(image, [[1, 1], [1, 1], [0, 0]], constant_values=FILL)
    pixels = tf.reshape(framed, [-1, 3])
    return tf.gather_nd(pixels, (row * tf.shape(framed)[1] + column)[..., tf.newaxis])
