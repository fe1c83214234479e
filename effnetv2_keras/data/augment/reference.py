"""The operations of RandAugment and AutoAugment in the arithmetic of the reference code, including its faults.

Use them for results that must match the reference code (google/automl, ``efficientnetv2/autoaugment.py``). The level
equals the magnitude and is not clipped: magnitude 10 is level 10, and magnitude 20 is level 20. The differences from
the clean operations of ``randaugment`` are:

- Posterize keeps ``4 level / 10`` bits, so it becomes weaker as the level grows.
- Solarize inverts levels from ``256 level / 10`` up, so it becomes weaker up to level 10, where the threshold wraps to
  0.
- Contrast scales about a level that depends on the size of the image instead of its content.
- Color, Contrast, Brightness and Sharpness have the factor ``0.1 + 1.8 level / 10`` without a random sign. It is below
  1 for levels below 5 and above 1 for levels above 5, so level 5 changes nothing and level 0 changes much.
- TranslateX, TranslateY and Cutout use pixels, regardless of the size of the image.
- ShearX and ShearY keep the first row or column in place instead of the center.

Every operation takes and returns uint8 ``[H, W, 3]``. Pixels from outside the image are gray (128). Equalize and
Invert are those of ``randaugment``.
"""

from __future__ import annotations

import math
from typing import Callable

import tensorflow as tf

from effnetv2_keras.data.augment import geometry, randaugment
from effnetv2_keras.data.augment.randaugment import Op

MAX_LEVEL = 10.0
"""The level at which an operation has the strength given in ``ops`` (reference code, ``_MAX_LEVEL``)."""


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255 in float32; fractions are dropped, so the highest level may become 254."""
    rows = _float_rows(image)
    channels = tf.reshape(image, [-1, 3])
    low, high = (tf.cast(reduce(channels, axis=0), tf.float32) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(low < high, 255.0 / (high - low), 1.0)
    offset = tf.where(low < high, -low * scale, 0.0)
    width = tf.shape(image)[1]
    return _image(rows * tf.tile(scale, [width]) + tf.tile(offset, [width]), image)


def posterize(image: tf.Tensor, bits: tf.Tensor | int) -> tf.Tensor:
    """Keeps the highest ``bits`` bits of each level.

    Fault kept from the reference code: ``bits`` below 1 or above 8 keeps one bit, because the shift wraps and is then
    clamped to 7. Magnitudes below 2.5 and from 22.5 up therefore posterize the most.
    """
    bits = tf.cast(bits, tf.int32)
    return randaugment.posterize(image, 8 - tf.where((bits >= 1) & (bits <= 8), bits, 1))


def solarize(image: tf.Tensor, threshold: tf.Tensor | int) -> tf.Tensor:
    """Inverts the levels from ``threshold`` up.

    Fault kept from the reference code: the threshold is an 8-bit number and wraps, so 256 inverts the whole image and
    384 acts as 128.
    """
    return randaugment.solarize(image, 256 - tf.cast(threshold, tf.int32) % 256)


def solarize_add(image: tf.Tensor, levels: tf.Tensor | int) -> tf.Tensor:
    """Adds ``levels``, at least 0, to the levels below 128; the sum is clipped to 255."""
    added = tf.minimum(tf.bitwise.invert(image), tf.cast(tf.minimum(tf.cast(levels, tf.int32), 255), tf.uint8))
    return image + tf.cast(image < 128, tf.uint8) * added


def color(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from the gray image, ``tf.image.rgb_to_grayscale``, by ``factor``."""
    gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    return _blend(_float_rows(gray), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from one fixed level by ``factor``.

    Fault kept from the reference code: the level is the number of pixels divided by 256 (the sum of the histogram's
    counts divided by the number of bins) instead of the mean luminance, and at most 255. It is 114 for an image of
    171 x 171 pixels, 196 for 224 x 224, and 255 from 256 x 256.
    """
    pixels = tf.size(image) // 3
    return _blend(tf.cast(tf.minimum(pixels // 256, 255), tf.float32), image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Scales all levels by ``factor``."""
    return _blend(tf.constant(0.0), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from the smoothed image by ``factor``; the outermost pixels are unchanged.

    The weights are those of ``randaugment.sharpness``. The smoothing is a convolution, although that is slow: the sum
    of shifted images rounds differently, which matters because the smoothed image drops its fractions. Each side of
    the image must have at least 3 pixels.
    """
    weights = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13.0
    kernel = tf.tile(weights[:, :, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    pixels = tf.cast(image, tf.float32)[tf.newaxis]
    smoothed = tf.nn.depthwise_conv2d(pixels, kernel, strides=[1, 1, 1, 1], padding="VALID")[0]
    smoothed = tf.cast(tf.saturate_cast(smoothed, tf.uint8), tf.float32)
    inside = tf.cast(image[1:-1, 1:-1], tf.float32)
    blended = tf.saturate_cast(smoothed + factor * (inside - smoothed), tf.uint8)
    middle = tf.concat([image[1:-1, :1], blended, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], middle, image[-1:]], axis=0)


def rotate(image: tf.Tensor, degrees: tf.Tensor | float) -> tf.Tensor:
    """Turns the image counterclockwise about its center, nearest neighbor."""
    radians = tf.convert_to_tensor(degrees, tf.float32) * (math.pi / 180.0)
    cos, sin = tf.cos(radians), tf.sin(radians)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2] - 1, tf.float32))
    x_offset = (width - (cos * width - sin * height)) / 2.0
    y_offset = (height - (sin * width + cos * height)) / 2.0
    return _transform(image, [cos, -sin, x_offset, sin, cos, y_offset])


def shear_x(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each row left by ``slope`` times its index, nearest neighbor; the first row stays (fault kept)."""
    return _transform(image, [1.0, slope, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each column up by ``slope`` times its index, nearest neighbor; the first column stays (fault kept)."""
    return _transform(image, [1.0, 0.0, 0.0, slope, 1.0, 0.0])


def translate_x(image: tf.Tensor, pixels: tf.Tensor | float) -> tf.Tensor:
    """Moves the image left by ``pixels``, regardless of its width (fault kept), nearest neighbor."""
    return _transform(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, pixels: tf.Tensor | float) -> tf.Tensor:
    """Moves the image up by ``pixels``, regardless of its height (fault kept), nearest neighbor."""
    return _transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def cutout(image: tf.Tensor, pad: tf.Tensor | int, place: tf.Tensor) -> tf.Tensor:
    """Covers a square with a side of ``2 pad`` pixels, regardless of the image size (fault kept).

    ``place``, float32 ``[2]`` in [0, 1), is the center of the square; see ``geometry.cover``.
    """
    return geometry.cover(image, 2 * tf.cast(pad, tf.int32), place)


def ops(*, translate: float, cutout_pad: float) -> dict[str, Op]:
    """Returns the table of the sixteen operations, in the order of the reference code.

    Args:
        translate: length of a translation at level 10, pixels.
        cutout_pad: half the side of Cutout's square at level 10, pixels.
    """
    factor = "factor"
    return {
        "AutoContrast": Op(autocontrast),
        "Equalize": Op(randaugment.equalize),
        "Invert": Op(randaugment.invert),
        "Rotate": Op(rotate, _linear(30.0), "degrees", "sign"),
        "Posterize": Op(posterize, _floor(4.0), "bits kept"),
        "Solarize": Op(solarize, _floor(256.0), "lowest level inverted"),
        "Color": Op(color, _factor, factor),
        "Contrast": Op(contrast, _factor, factor),
        "Brightness": Op(brightness, _factor, factor),
        "Sharpness": Op(sharpness, _factor, factor),
        "ShearX": Op(shear_x, _linear(0.3), "slope", "sign"),
        "ShearY": Op(shear_y, _linear(0.3), "slope", "sign"),
        "TranslateX": Op(translate_x, _linear(translate), "pixels", "sign"),
        "TranslateY": Op(translate_y, _linear(translate), "pixels", "sign"),
        "Cutout": Op(cutout, _floor(cutout_pad), "pixels, half the side", "place"),
        "SolarizeAdd": Op(solarize_add, _floor(110.0), "levels added"),
    }


def _linear(at_10: float) -> Callable[[float], float]:
    return lambda level: level / MAX_LEVEL * at_10


def _floor(at_10: float) -> Callable[[float], int]:
    return lambda level: int(level / MAX_LEVEL * at_10)


def _factor(level: float) -> float:
    return level / MAX_LEVEL * 1.8 + 0.1


RANDAUGMENT_OPS = ops(translate=100.0, cutout_pad=40.0)
"""The operations that RandAugment draws from; their level is its magnitude."""

AUTOAUGMENT_OPS = ops(translate=250.0, cutout_pad=100.0)
"""The operations of AutoAugment's sub-policies."""


def _float_rows(image: tf.Tensor) -> tf.Tensor:
    """Returns the image as float32 ``[H, 3 W]``, on which arithmetic is faster than on ``[H, W, 3]``."""
    return tf.cast(tf.reshape(image, [tf.shape(image)[0], -1]), tf.float32)


def _image(rows: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Clips to 0..255, drops fractions, and reshapes to the shape of ``like``, uint8."""
    return tf.reshape(tf.saturate_cast(rows, tf.uint8), tf.shape(like))


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Interpolates from ``degenerate``, ``[H, 3 W]`` or a scalar, to the image; extrapolates for ``factor > 1``."""
    return _image(degenerate + factor * (_float_rows(image) - degenerate), image)


def _transform(image: tf.Tensor, affine: list[tf.Tensor | float]) -> tf.Tensor:
    """Returns the image whose pixel ``(x, y)`` is the input pixel nearest to ``(a x + b y + c, d x + e y + f)``.

    ``affine`` holds a to f. This is the kernel that TensorFlow Addons calls. The reference code also transforms a
    fourth channel of ones and fills pixels with gray where it becomes 0, that is, outside the image. ``fill_value``
    does the same.
    """
    transform = tf.stack([tf.cast(value, tf.float32) for value in (*affine, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=tf.constant(float(geometry.FILL)),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.reshape(moved, tf.shape(image))
