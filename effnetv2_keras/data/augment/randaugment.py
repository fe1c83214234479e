"""RandAugment with one magnitude scale, 0 to 30, on which every operation grows stronger at every image size.

The paper (arXiv 2104.00298, Table 6) gives magnitudes but does not say how strong they make each operation. In the
reference code some operations weaken as the magnitude grows, and distances are in pixels regardless of the image
size. Progressive learning increases magnitude and image size together, so both matter. Here ``M`` in [0, 30] means:

======================================  ==========================================  =========================
operation                               strength at magnitude M                     drawn at random
======================================  ==========================================  =========================
AutoContrast, Equalize, Invert          always the same                             nothing
Rotate                                  3 M degrees                                 direction
ShearX, ShearY                          slope 0.03 M, about the center              direction
TranslateX, TranslateY                  0.02 M of the width or height               direction
Posterize                               floor(M / 6 + 1/2) low bits cleared         nothing
Solarize                                levels from 256 (1 - M / 30) up inverted    nothing
SolarizeAdd                             128 M / 30 added to levels below 128        nothing
Color, Contrast, Brightness, Sharpness  factor 1 +- 0.9 M / 30                      sign
Cutout                                  square of 0.02 M of the shorter side        center, over all pixels
======================================  ==========================================  =========================

Every operation takes and returns uint8 ``[H, W, 3]``. Pixels from outside the image and the square of Cutout are gray
(128). The operations use arithmetic on whole images, because per-element ``tf.where`` and table look-ups take five to
ten times as long (``benchmarks/randaugment_ops.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Callable, Literal

import tensorflow as tf

from effnetv2_keras.data.augment import geometry

MAX_MAGNITUDE = 30.0

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's "L"


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the full range 0..255; a channel with a single level is unchanged."""
    rows = tf.cast(_rows(image), tf.float32)
    low, high = _over_pixels(tf.reduce_min, rows), _over_pixels(tf.reduce_max, rows)
    scale = tf.where(low < high, 255.0 / (high - low), 1.0)
    # Fractions are dropped. Rounding errors may put a whole result just below its value; adding 0.5 / 255 corrects that
    # and changes no other result, because all others are at least 1 / 255 away from the next whole number.
    offset = tf.where(low < high, low * scale - 0.5 / 255.0, 0.0)
    return _image(rows * _tile(scale, image) - _tile(offset, image), image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel by the rule of PIL's ``ImageOps.equalize``."""
    bins = tf.reshape(tf.cast(_rows(image), tf.int32) + _tile(tf.constant([0, 256, 512]), image), [-1])
    counts = tf.reshape(tf.math.bincount(bins, minlength=768, maxlength=768), [3, 256])
    brightest = tf.reduce_max(tf.range(256) * tf.cast(counts > 0, tf.int32), axis=1)
    step = (tf.size(image) // 3 - tf.gather(counts, brightest, batch_dims=1))[:, tf.newaxis] // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    levels = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.reshape(tf.cast(tf.where(step > 0, levels, tf.range(256)), tf.uint8), [-1])
    return tf.reshape(tf.gather_nd(table, bins[:, tf.newaxis]), tf.shape(image))


def invert(image: tf.Tensor) -> tf.Tensor:
    """Turns each level ``v`` into ``255 - v``."""
    return tf.bitwise.invert(image)


def posterize(image: tf.Tensor, bits: tf.Tensor | int) -> tf.Tensor:
    """Clears the lowest ``bits`` bits, 0 to 8, of each level."""
    kept = 256 - tf.bitwise.left_shift(1, tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(kept, tf.uint8))


def solarize(image: tf.Tensor, levels: tf.Tensor | float) -> tf.Tensor:
    """Inverts the brightest ``levels`` of the 256 levels; ``levels`` is a whole number."""
    inverted = tf.cast(tf.cast(image, tf.int16) >= 256 - tf.cast(levels, tf.int16), tf.uint8)
    return tf.bitwise.bitwise_xor(image, inverted * 255)


def solarize_add(image: tf.Tensor, levels: tf.Tensor | float) -> tf.Tensor:
    """Adds ``levels``, a whole number, at most 128, to the levels below 128, so no result exceeds 255."""
    return image + tf.cast(image < 128, tf.uint8) * tf.cast(levels, tf.uint8)


def color(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from the gray image by ``1 + change``."""
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    gray = tf.round(tf.matmul(pixels, tf.tile(tf.constant(_LUMINANCE)[:, tf.newaxis], [1, 3])))
    return _image(pixels + change * (pixels - gray), image)


def contrast(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from the mean luminance, rounded to a whole level as in PIL, by ``1 + change``."""
    rows = tf.cast(_rows(image), tf.float32)
    mean = tf.round(tf.reduce_sum(_over_pixels(tf.reduce_mean, rows) * _LUMINANCE))
    return _image(rows + change * (rows - mean), image)


def brightness(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Scales all levels by ``1 + change``."""
    return _image((1.0 + change) * tf.cast(image, tf.float32), image)


def sharpness(image: tf.Tensor, change: tf.Tensor | float) -> tf.Tensor:
    """Scales the difference from the smoothed image by ``1 + change``; the outermost pixels are unchanged.

    Smoothing weights the pixel itself by 5/13 and its eight neighbors by 1/13 (PIL's ``SMOOTH``). It adds shifted
    images, because TensorFlow's convolution kernels are many times slower on three channels. Each side of the image
    must have at least 3 pixels.
    """
    rows = tf.cast(_rows(image), tf.float32)
    upright = tf.add_n([rows[:-2], rows[1:-1], rows[2:]])
    square = tf.add_n([upright[:, :-6], upright[:, 3:-3], upright[:, 6:]])
    centre = rows[1:-1, 3:-3]
    detail = centre - tf.floor((square + 4.0 * centre) / 13.0)
    return _image(rows + change * tf.pad(detail, [[1, 1], [3, 3]]), image)


# Adding a [3] to an [H, W, 3] is slow, because the inner loop has 3 iterations. The helpers below use [H, 3 W] instead.


def _rows(image: tf.Tensor) -> tf.Tensor:
    """Views ``[H, W, 3]`` as ``[H, 3 W]``."""
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _tile(channels: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Repeats one value per channel, ``[3]``, into a row ``[3 W]``."""
    return tf.tile(channels, [tf.shape(image)[1]])


def _over_pixels(reduce: Callable[..., tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Reduces ``[H, 3 W]`` to one value per channel, ``[3]``."""
    return reduce(tf.reshape(reduce(rows, axis=0), [-1, 3]), axis=0)


def _image(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Clips to 0..255, drops fractions as PIL does, and reshapes to the shape of ``like``, uint8."""
    return tf.reshape(tf.saturate_cast(values, tf.uint8), tf.shape(like))


@dataclasses.dataclass(frozen=True)
class Op:
    """One row of the operation table.

    Attributes:
        function: maps the image, the strength (if there is one; a number or a float32 scalar) and the place (if
            ``drawn`` is ``"place"``) to the changed image.
        strength: maps a magnitude in [0, 30] to the strength; None for an operation without strength.
        unit: unit of the strength.
        drawn: what is random: the sign of the strength, the place in the image, or nothing.
    """

    function: Callable[..., tf.Tensor]
    strength: Callable[[float], float] | None = None
    unit: str = ""
    drawn: Literal["nothing", "sign", "place"] = "nothing"

    def at(self, magnitude: float) -> float:
        """Returns the strength at ``magnitude``; 0 for an operation without strength."""
        return 0.0 if self.strength is None else self.strength(magnitude)

    def apply(self, image: tf.Tensor, strength: tf.Tensor | float, *, sign: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """Applies the operation; ``sign`` is 1 or -1, ``place`` is float32 ``[2]`` in [0, 1)."""
        if self.strength is None:
            return self.function(image)
        if self.drawn == "sign":
            return self.function(image, sign * strength)
        if self.drawn == "place":
            return self.function(image, strength, place)
        return self.function(image, strength)


def _linear(at_30: float) -> Callable[[float], float]:
    return lambda magnitude: at_30 * magnitude / MAX_MAGNITUDE


_FACTOR = "change of the factor from 1"

OPS: dict[str, Op] = {
    "AutoContrast": Op(autocontrast),
    "Equalize": Op(equalize),
    "Invert": Op(invert),
    "Rotate": Op(geometry.rotate, _linear(90.0), "degrees", "sign"),
    "Posterize": Op(posterize, lambda magnitude: math.floor(magnitude / 6.0 + 0.5), "bits cleared"),
    "Solarize": Op(
        solarize, lambda magnitude: math.floor(_linear(256.0)(magnitude)), "levels inverted, from the brightest"
    ),
    "Color": Op(color, _linear(0.9), _FACTOR, "sign"),
    "Contrast": Op(contrast, _linear(0.9), _FACTOR, "sign"),
    "Brightness": Op(brightness, _linear(0.9), _FACTOR, "sign"),
    "Sharpness": Op(sharpness, _linear(0.9), _FACTOR, "sign"),
    "ShearX": Op(geometry.shear_x, _linear(0.9), "slope", "sign"),
    "ShearY": Op(geometry.shear_y, _linear(0.9), "slope", "sign"),
    "TranslateX": Op(geometry.translate_x, _linear(0.6), "share of the width", "sign"),
    "TranslateY": Op(geometry.translate_y, _linear(0.6), "share of the height", "sign"),
    "Cutout": Op(geometry.cutout, _linear(0.6), "share of the shorter side", "place"),
    "SolarizeAdd": Op(solarize_add, lambda magnitude: round(_linear(128.0)(magnitude)), "levels added"),
}
"""The sixteen operations, in the order of the reference code."""


def randaugment(
    image: tf.Tensor, *, magnitude: float, num_layers: int, seed: tf.Tensor, ops: Mapping[str, Op] = OPS
) -> tf.Tensor:
    """Applies ``num_layers`` operations in sequence, each drawn uniformly with replacement.

    Args:
        image: uint8 ``[H, W, 3]``.
        magnitude: strength of every operation, 0 to 30; 0 leaves the image unchanged.
        num_layers: number of operations, at least 1 (reference code: 2).
        seed: int32 ``[2]``; the result depends only on the seed and the image.
        ops: the operations to draw from.

    Returns:
        The augmented image, uint8 ``[H, W, 3]``.

    Raises:
        ValueError: if the magnitude or the number of layers is out of range.
    """
    return randaugment_at(image, strengths_at(magnitude, ops), num_layers=num_layers, seed=seed, ops=ops)


def strengths_at(magnitude: float, ops: Mapping[str, Op] = OPS) -> tf.Tensor | None:
    """Returns how strong each operation is, float32 ``[len(ops)]``; None at magnitude 0, which changes nothing.

    Args:
        magnitude: strength of every operation, 0 to 30.
        ops: the operations.

    Raises:
        ValueError: if the magnitude is out of range.
    """
    if not 0.0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"The RandAugment magnitude is {magnitude!r}, but must be in [0, 30]; 0 turns it off.")
    return tf.constant([op.at(magnitude) for op in ops.values()], tf.float32) if magnitude else None


def randaugment_at(
    image: tf.Tensor, strengths: tf.Tensor | None, *, num_layers: int, seed: tf.Tensor, ops: Mapping[str, Op] = OPS
) -> tf.Tensor:
    """Does as ``randaugment``, with one graph for all magnitudes.

    Args:
        image: see ``randaugment``.
        strengths: see ``strengths_at``; None leaves the image unchanged.
        num_layers: see ``randaugment``.
        seed: see ``randaugment``.
        ops: see ``randaugment``.

    Raises:
        ValueError: if the number of layers is out of range.
    """
    if num_layers < 1:
        raise ValueError(
            f"The number of RandAugment layers is {num_layers!r}, but must be at least 1. To turn RandAugment off, set "
            "the magnitude to 0."
        )
    if strengths is None:
        return image
    draws = tf.random.stateless_uniform([num_layers, 4], seed)
    chosen = tf.cast(draws[:, 0] * len(ops), tf.int32)
    return apply_in_turn(image, [*ops.values()], chosen, tf.gather(strengths, chosen), draws[:, 1:])


def apply_in_turn(
    image: tf.Tensor, ops: Sequence[Op], chosen: tf.Tensor, strengths: tf.Tensor, draws: tf.Tensor
) -> tf.Tensor:
    """Applies ``n`` operations in sequence.

    Args:
        image: uint8 ``[H, W, 3]``.
        ops: the operations to choose from.
        chosen: int32 ``[n]``, indices into ``ops``.
        strengths: float32 ``[n]``, of the chosen operations.
        draws: float32 ``[n, 3]``, random numbers in [0, 1). The first of a row makes the strength negative if it is
            below 0.5; the other two are the place.

    Returns:
        The augmented image, uint8 ``[H, W, 3]``.
    """

    def layer(augmented: tf.Tensor, step: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        number, strength, draw = step
        sign = tf.where(draw[0] < 0.5, -1.0, 1.0)
        branches = [functools.partial(op.apply, augmented, strength, sign=sign, place=draw[1:]) for op in ops]
        return tf.ensure_shape(tf.switch_case(number, branches), image.shape)

    # A fold instead of a Python loop traces and optimizes the branches only once, for any number of operations.
    return tf.foldl(layer, (chosen, strengths, draws), initializer=image)
