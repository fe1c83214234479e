"""The operations of RandAugment and AutoAugment in the arithmetic of the reference code, its faults included.

For results that must match those of the original (google/automl, ``efficientnetv2/autoaugment.py``). What it does and
the clean operations of ``randaugment`` do not, on its scale of levels, 10 at the magnitude 10 and not clipped:

- Posterize keeps ``4 level / 10`` bits, so it weakens as the level grows;
- Solarize inverts from ``256 level / 10`` up, so it weakens up to level 10, where the threshold wraps to 0;
- Contrast turns about a level that depends on the size of the image and not on what it shows;
- Color, Contrast, Brightness and Sharpness have the factor ``0.1 + 1.8 level / 10``, which never falls from 1;
- TranslateX, TranslateY and Cutout count pixels, whatever the size of the image;
- ShearX and ShearY keep the first row or column in place, not the centre.

Every operation takes and gives uint8 ``[H, W, 3]``; what comes from outside is grey (128). Equalize and Invert are
those of ``randaugment``.
"""

from __future__ import annotations

import math
from typing import Callable

import tensorflow as tf

from effnetv2_keras.data.augment import geometry, randaugment
from effnetv2_keras.data.augment.randaugment import Op

MAX_LEVEL = 10.0
"""The level at which an operation has the strength that its table names (reference code, ``_MAX_LEVEL``)."""


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255 in float32, fractions dropped, so the highest level may end at 254."""
    rows = _float_rows(image)
    channels = tf.reshape(image, [-1, 3])
    low, high = (tf.cast(reduce(channels, axis=0), tf.float32) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(low < high, 255.0 / (high - low), 1.0)
    offset = tf.where(low < high, -low * scale, 0.0)
    width = tf.shape(image)[1]
    return _image(rows * tf.tile(scale, [width]) + tf.tile(offset, [width]), image)


def posterize(image: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps the highest ``bits`` bits of each level.

    Fault kept: bits below 1 or above 8 keep one bit, because the number of bits to shift by wraps and is then clamped
    to 7; so magnitudes below 2.5, and from 22.5, posterize the most.
    """
    return randaugment.posterize(image, 8 - (bits if 1 <= bits <= 8 else 1))


def solarize(image: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts the levels from ``threshold`` up.

    Fault kept: the threshold is an 8-bit number and wraps, so 256 inverts the whole image and 384 acts as 128.
    """
    return randaugment.solarize(image, 256.0 - threshold % 256)


def solarize_add(image: tf.Tensor, levels: int) -> tf.Tensor:
    """Adds ``levels``, at least 0, to the levels below 128; 255 at most results."""
    added = tf.minimum(tf.bitwise.invert(image), tf.constant(min(levels, 255), tf.uint8))
    return image + tf.cast(image < 128, tf.uint8) * added


def color(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales the difference from the grey image by ``factor``; grey is ``tf.image.rgb_to_grayscale``."""
    gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    return _blend(_float_rows(gray), image, factor)


def contrast(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales the difference from one level by ``factor``.

    Fault kept: the level is not the mean luminance but the number of pixels over 256 (the sum of the histogram's
    counts over its bins), at most 255: 114 at 171 px, 196 at 224 px and 255 from 256 px.
    """
    pixels = tf.size(image) // 3
    return _blend(tf.cast(tf.minimum(pixels // 256, 255), tf.float32), image, factor)


def brightness(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales all levels by ``factor``."""
    return _blend(tf.constant(0.0), image, factor)


def sharpness(image: tf.Tensor, factor: float) -> tf.Tensor:
    """Scales the difference from the smoothed image by ``factor``; the outermost pixels stay.

    Weights as in ``randaugment.sharpness``. A convolution, although it is slow: sums of shifted images round
    differently, and the smoothed image drops its fractions. The sides must be at least 3 pixels.
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
    """Turns the image counterclockwise about its centre, nearest neighbour."""
    radians = tf.convert_to_tensor(degrees, tf.float32) * (math.pi / 180.0)
    cos, sin = tf.cos(radians), tf.sin(radians)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2] - 1, tf.float32))
    x_offset = (width - (cos * width - sin * height)) / 2.0
    y_offset = (height - (sin * width + cos * height)) / 2.0
    return _transform(image, [cos, -sin, x_offset, sin, cos, y_offset])


def shear_x(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each row left by ``slope`` times its number, nearest neighbour; the first row stays (fault kept)."""
    return _transform(image, [1.0, slope, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, slope: tf.Tensor | float) -> tf.Tensor:
    """Slides each column up by ``slope`` times its number, nearest neighbour; the first one stays (fault kept)."""
    return _transform(image, [1.0, 0.0, 0.0, slope, 1.0, 0.0])


def translate_x(image: tf.Tensor, pixels: tf.Tensor | float) -> tf.Tensor:
    """Moves the image left by ``pixels``, whatever its width (fault kept), nearest neighbour."""
    return _transform(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, pixels: tf.Tensor | float) -> tf.Tensor:
    """Moves the image up by ``pixels``, whatever its height (fault kept), nearest neighbour."""
    return _transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def cutout(image: tf.Tensor, pad: int, place: tf.Tensor) -> tf.Tensor:
    """Covers a square of ``2 pad`` pixels, whatever the size of the image (fault kept); ``place`` is its centre."""
    return geometry.cover(image, 2 * pad, place)


def ops(*, translate: float, cutout_pad: float) -> dict[str, Op]:
    """Makes the table of the sixteen operations, in the order of the reference code.

    Args:
        translate: pixels of a translation at level 10.
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
"""What RandAugment draws from; the level is its magnitude."""

AUTOAUGMENT_OPS = ops(translate=250.0, cutout_pad=100.0)
"""What the sub-policies of AutoAugment name."""


def _float_rows(image: tf.Tensor) -> tf.Tensor:
    """Gives float32 ``[H, 3 W]``, on which arithmetic is cheaper than on ``[H, W, 3]``."""
    return tf.cast(tf.reshape(image, [tf.shape(image)[0], -1]), tf.float32)


def _image(rows: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Clips to 0..255, drops fractions, and gives the shape of an image back."""
    return tf.reshape(tf.saturate_cast(rows, tf.uint8), tf.shape(like))


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: float) -> tf.Tensor:
    """Goes from ``degenerate``, ``[H, 3 W]`` or a scalar, ``factor`` of the way to the image and beyond."""
    return _image(degenerate + factor * (_float_rows(image) - degenerate), image)


def _transform(image: tf.Tensor, affine: list[tf.Tensor | float]) -> tf.Tensor:
    """Makes the pixel at ``(x, y)`` what was nearest to ``(a x + b y + c, d x + e y + f)``, ``affine`` being a to f.

    The kernel that TensorFlow Addons calls. The reference code transforms a fourth channel of ones along and makes
    grey where that is 0: outside the image, which is what ``fill_value`` fills.
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
