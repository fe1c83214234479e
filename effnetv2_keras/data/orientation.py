"""The EXIF orientation of JPEG files, by graph ops only, so that data services and SavedModels apply it too."""

from __future__ import annotations

from typing import Any, Callable

import tensorflow as tf

_SEARCHED = 1 << 18  # bytes from the start of a file
_MAX_SEGMENTS = 64
_MAX_ENTRIES = 512
_ENTRY = 12  # bytes
_TAG, _SHORT, _LONG = 0x0112, 3, 4

# For each orientation 0..8: whether to flip the stored image top to bottom, then left to right, then to transpose it.
_FLIP_ROWS = (0, 0, 0, 1, 1, 0, 1, 1, 0)
_FLIP_COLUMNS = (0, 0, 1, 1, 0, 0, 0, 1, 1)
_TRANSPOSE = (0, 0, 0, 0, 0, 1, 1, 1, 1)


def traced_once(*signature: tf.TensorSpec) -> Callable[[Callable[..., tf.Tensor]], Any]:
    """Decorates a function so that it is traced once for all input pipelines and costs nothing where it is not called.

    TensorFlow executes the ops of both branches of ``tf.cond``, without their kernels. A function that is not inlined
    is one op.

    Args:
        *signature: the arguments of the function.
    """
    options: dict[str, Any] = {"autograph": False, "experimental_attributes": {"_noinline": True}}
    return lambda function: tf.function(function, input_signature=signature, **options)


def may_be_turned(jpeg: tf.Tensor) -> tf.Tensor:
    """Returns whether a JPEG file seems to have EXIF data: a quick check, for files that have none."""
    head = tf.strings.substr(jpeg, 0, _SEARCHED)
    # tf.strings.split does the same with many more ops.
    return tf.size(tf.raw_ops.StringSplitV2(input=[head], sep="Exif\0\0", maxsplit=1).values) > 1


@traced_once(tf.TensorSpec([], tf.string))
def orientation_of(jpeg: tf.Tensor) -> tf.Tensor:
    """Returns the orientation that the EXIF data of a JPEG file gives.

    Args:
        jpeg: string scalar, the bytes of the file.

    Returns:
        int32 scalar in 1..8 (EXIF 2.3, tag 0x0112). 1, which changes nothing, if there is no EXIF data or it is
        damaged.
    """
    length = tf.strings.length(jpeg)

    def is_other_segment(position: tf.Tensor) -> tf.Tensor:
        """Whether a segment APPn or a comment begins here, but not one with EXIF data."""

        def look() -> tf.Tensor:
            head = _numbers(jpeg, position, 10)
            app = (head[0] == 0xFF) & ((head[1] & 0xF0 == 0xE0) | (head[1] == 0xFE))
            return app & ~_is_exif(head)

        return tf.cond(position + 10 <= length, look, lambda: tf.constant(False))

    def skip(position: tf.Tensor) -> tuple[tf.Tensor]:
        size = _numbers(jpeg, position + 2, 2)
        return (position + 2 + tf.maximum(size[0] * 256 + size[1], 2),)

    (position,) = tf.while_loop(is_other_segment, skip, (tf.constant(2),), maximum_iterations=_MAX_SEGMENTS)
    found = tf.cond(position + 18 <= length, lambda: _is_exif(_numbers(jpeg, position, 10)), lambda: tf.constant(False))
    return tf.cond(found, lambda: _parse(_exif(jpeg, position, length)), lambda: tf.constant(1))


def exchanged(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the shape of the upright image: height and width of the stored one, int32 ``[3]``, maybe exchanged."""
    turned = tf.gather(_TRANSPOSE, orientation) == 1
    return tf.where(turned, tf.gather(shape, [1, 0, 2]), shape)


def stored_rectangle(rectangle: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns where a rectangle of the upright image lies in the stored image.

    Args:
        rectangle: top, left, height and width in the upright image, int32 ``[4]``.
        shape: shape of the stored image, int32 ``[3]``.
        orientation: int32 scalar in 1..8.
    """
    turned = tf.gather(_TRANSPOSE, orientation) == 1
    top, left, height, width = tf.unstack(tf.where(turned, tf.gather(rectangle, [1, 0, 3, 2]), rectangle))
    top = tf.where(tf.gather(_FLIP_ROWS, orientation) == 1, shape[0] - top - height, top)
    left = tf.where(tf.gather(_FLIP_COLUMNS, orientation) == 1, shape[1] - left - width, left)
    return tf.stack([top, left, height, width])


@traced_once(tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int32))
def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored image, or a rectangle of it, upright.

    Args:
        image: uint8 ``[H, W, 3]``.
        orientation: int32 scalar in 1..8.

    Returns:
        uint8 ``[H, W, 3]`` or ``[W, H, 3]``.
    """

    def turn() -> tf.Tensor:
        rows, columns = (1 - 2 * tf.gather(flips, orientation) for flips in (_FLIP_ROWS, _FLIP_COLUMNS))
        flipped = image[::rows, ::columns]
        turned = tf.gather(_TRANSPOSE, orientation) == 1
        return tf.ensure_shape(tf.transpose(flipped, tf.where(turned, [1, 0, 2], [0, 1, 2])), [None, None, 3])

    return tf.cond(orientation == 1, lambda: tf.ensure_shape(image, [None, None, 3]), turn)


def _numbers(data: tf.Tensor, position: tf.Tensor, count: int) -> tf.Tensor:
    """Returns bytes as int32 ``[count]``; there must be so many."""
    return tf.ensure_shape(tf.cast(tf.io.decode_raw(tf.strings.substr(data, position, count), tf.uint8), tf.int32),
                           [count])  # fmt: skip


def _is_exif(head: tf.Tensor) -> tf.Tensor:
    marker = tf.constant([0xFF, 0xE1, *b"Exif\0\0"], tf.int32)
    return tf.reduce_all(tf.concat([head[:2], head[4:10]], axis=0) == marker)


def _exif(jpeg: tf.Tensor, position: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Returns the TIFF structure in a segment, int32 ``[n]``, without going beyond the file."""
    size = _numbers(jpeg, position + 2, 2)
    count = tf.clip_by_value(size[0] * 256 + size[1] - 8, 0, length - position - 10)
    return tf.cast(tf.io.decode_raw(tf.strings.substr(jpeg, position + 10, count), tf.uint8), tf.int32)


def _parse(tiff: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in a TIFF structure, or 1."""
    tiff = tf.concat([tiff, tf.zeros([8], tf.int32)], axis=0)
    little = tf.reduce_all(tiff[:4] == tf.constant([*b"II", 42, 0]))
    big = tf.reduce_all(tiff[:4] == tf.constant([*b"MM", 0, 42]))

    def number(data: tf.Tensor, position: int | tf.Tensor, width: int) -> tf.Tensor:
        """The bytes from a position on along the last axis, as one unsigned number, int64."""
        values = tf.cast(data[..., position : position + width], tf.int64)
        values = tf.where(little, tf.reverse(values, [-1]), values)
        return tf.reduce_sum(values * [256**power for power in reversed(range(width))], axis=-1)

    size = tf.size(tiff, tf.int64)
    start = number(tiff, 4, 4)
    start = tf.where(start + 2 <= size, start, size - 2)
    entries = tiff[start + 2 : start + 2 + _ENTRY * tf.minimum(number(tiff, start, 2), _MAX_ENTRIES)]
    entries = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], [-1, _ENTRY])
    kind, value = number(entries, 2, 2), number(entries, 8, 2)
    value = tf.where(kind == _LONG, number(entries, 8, 4), value)
    usable = (number(entries, 0, 2) == _TAG) & ((kind == _SHORT) | (kind == _LONG)) & (number(entries, 4, 4) == 1)
    values = tf.concat([tf.boolean_mask(value, usable & (value >= 1) & (value <= 8)), [1]], axis=0)
    return tf.cast(tf.where(little | big, values[0], 1), tf.int32)
