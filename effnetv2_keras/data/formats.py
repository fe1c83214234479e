"""Whole images of every format as RGB: which op or package reads which file, and why one is refused.

The bytes decide, not the name of the file. TensorFlow reads JPEG, PNG, GIF and the usual BMP; Pillow reads WebP, TIFF,
AVIF, HEIF and the other BMP. Pillow is called by a Python function, which neither a data service nor a SavedModel can
run. There such images are refused.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, Callable, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data import orientation, pillow_reader

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib",
    ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Suffixes of the files that are looked for in folders."""

NOT_AN_IMAGE = "not a complete JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIF image"
"""What an unreadable file is, if nothing else is known about it."""

_FOREIGN = (
    ("a WebP image", 8, b"WEBP"),
    ("a TIFF image", 0, b"II*\0"),
    ("a TIFF image", 0, b"MM\0*"),
    ("a TIFF image", 0, b"II+\0"),
    ("a TIFF image", 0, b"MM\0+"),
    ("an AVIF or HEIF image", 4, b"ftyp"),
)
"""The formats that only Pillow reads: name, and where in the file which bytes are."""

_USUAL, _SIXTEEN_BITS, _BMP, _OTHER = range(4)
_BMP_HEADER = 70  # bytes
_FILE = tf.TensorSpec([], tf.string)
_REFUSED = "Cannot read this image: "


@dataclasses.dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        exif_orientation: whether to turn images upright as their EXIF data says.
        max_value: value of white in images with 16 bits per channel; None for 65535, and then an image is refused that
            has values, but none from 16384 on.
        place: where the graph runs: ``"process"`` (this one), ``"service"`` or ``"export"``. In the other two, Pillow
            cannot be used.
    """

    exif_orientation: bool = False
    max_value: int | None = None
    place: Literal["process", "service", "export"] = "process"

    @classmethod
    def of(cls, data: DataConfig, *, service: bool = False) -> Reading:
        """Returns how the images of the data set are read, in this process or in a data service."""
        default = data.source in ("folder", "csv") and data.pipeline == "clean"
        turn = default if data.exif_orientation is None else data.exif_orientation
        return cls(turn, data.max_value, "service" if service else "process")

    @classmethod
    def of_photos(cls, data: DataConfig, *, export: bool) -> Reading:
        """Returns how the images are read that a trained network classifies, in this process or in an export."""
        turn = data.pipeline == "clean" if data.exif_orientation is None else data.exif_orientation
        return cls(turn, data.max_value, "export" if export else "process")


def one_op(branch: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    """Returns a branch of ``tf.cond`` that costs nothing where it is not taken; see ``orientation.traced_once``."""
    if tf.executing_eagerly():
        return branch
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})


def to_rgb(encoded: tf.Tensor, reading: Reading) -> tf.Tensor:
    """Returns the first image of a file.

    Args:
        encoded: string scalar, the bytes of the file.
        reading: how to read it.

    Returns:
        The image, uint8 ``[H, W, 3]``. Transparency is dropped.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, if the image is refused, damaged, or no image.
    """
    return tf.cond(_is_usual(encoded), lambda: _usual(encoded, reading), lambda: _rare(reading)(encoded))


def _usual(encoded: tf.Tensor, reading: Reading) -> tf.Tensor:
    image = tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])
    if not reading.exif_orientation:
        return image
    return tf.cond(
        tf.io.is_jpeg(encoded) & orientation.may_be_turned(encoded),
        lambda: orientation.upright(image, orientation.orientation_of(encoded)),
        lambda: image,
    )


@functools.lru_cache
def _rare(reading: Reading) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that decodes any file, traced once."""

    def sixteen_bits(encoded: tf.Tensor) -> tf.Tensor:
        values = tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.int32)
        white = reading.max_value or 65535
        scaled = tf.cast(values // 256 if white == 65535 else values * 255 // white, tf.uint8)
        return _unless_refused(_why_range(values, reading), scaled)

    def other(encoded: tf.Tensor) -> tf.Tensor:
        if reading.place != "process":
            return _unless_refused(_why_foreign(encoded, reading), tf.zeros([1, 1, 3], tf.uint8))
        image, reason = _with_pillow(encoded, reading)
        return _unless_refused(reason, image)

    @orientation.traced_once(_FILE)
    def rare(encoded: tf.Tensor) -> tf.Tensor:
        branches: list[Callable[[tf.Tensor], tf.Tensor]]
        branches = [functools.partial(_usual, reading=reading), sixteen_bits, _bmp, other]
        image = tf.switch_case(_kind(encoded), [functools.partial(branch, encoded) for branch in branches])
        return tf.ensure_shape(image, [None, None, 3])

    return rare


def why(encoded: tf.Tensor, reading: Reading) -> tf.Tensor:
    """Returns why ``to_rgb`` refuses an image: a clause such as "it holds floats", or "" for a damaged file.

    Args:
        encoded: string scalar, the bytes of a file that ``to_rgb`` refused.
        reading: how it was read.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, if the image is damaged.
    """
    return _why(reading)(tf.convert_to_tensor(encoded))


@functools.lru_cache
def _why(reading: Reading) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function of ``why``, traced once."""

    @orientation.traced_once(_FILE)
    def reason(encoded: tf.Tensor) -> tf.Tensor:
        def sixteen_bits() -> tf.Tensor:
            return _why_range(tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.int32), reading)

        def other() -> tf.Tensor:
            return _why_foreign(encoded, reading) if reading.place != "process" else _with_pillow(encoded, reading)[1]

        def nothing() -> tf.Tensor:
            return tf.constant("")

        return tf.switch_case(_kind(encoded), [nothing, sixteen_bits, nothing, other])

    return reason


def reason_in(error: Exception) -> str:
    """Returns the clause with which ``to_rgb`` refused an image, from TensorFlow's error; "" if there is none."""
    found = re.search(re.escape(_REFUSED) + r"([^\]\n']+)", str(error))
    return found.group(1) if found else ""


def _with_pillow(encoded: tf.Tensor, reading: Reading) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the image, and why it is refused or ""."""

    def read(content: Any) -> tuple[npt.NDArray[np.uint8], bytes]:
        content = content if isinstance(content, bytes) else content.item()  # in eager mode an array of one object
        try:
            return pillow_reader.read(content, reading.exif_orientation, reading.max_value or 0), b""
        except pillow_reader.NotReadableError as error:
            return np.zeros([0, 0, 3], np.uint8), str(error).encode()

    image, reason = tf.numpy_function(read, [encoded], [tf.uint8, tf.string])
    return tf.ensure_shape(image, [None, None, 3]), tf.ensure_shape(reason, [])


def has_both_ends(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a file begins and ends as a JPEG or a PNG file: a quick check that it was not cut off."""

    def ends(start: bytes, end: bytes) -> tf.Tensor:
        tail = tf.strings.substr(encoded, tf.maximum(tf.strings.length(encoded) - len(end), 0), len(end))
        return tf.equal(tf.strings.substr(encoded, 0, len(start)), start) & tf.equal(tail, end)

    return ends(b"\xff\xd8\xff", b"\xff\xd9") | ends(b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")


def _is_usual(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether this is a JPEG, a GIF or a PNG with at most 8 bits per channel: a quick check."""
    head = tf.strings.join([tf.strings.substr(encoded, 0, 25), b"\0" * 25])
    start = tf.strings.substr(head, 0, 3)
    png = (start == b"\x89PN") & (tf.strings.substr(head, 24, 1) != b"\x10")
    return png | (start == b"\xff\xd8\xff") | (start == b"GIF")


def _kind(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.strings.join([tf.strings.substr(encoded, 0, _BMP_HEADER), b"\0" * _BMP_HEADER])

    def has(position: int, content: bytes) -> tf.Tensor:
        return tf.strings.substr(head, position, len(content)) == content

    sixteen_bits = has(0, b"\x89PNG\r\n\x1a\n") & has(24, b"\x10")
    foreign = tf.reduce_any([has(position, content) for _, position, content in _FOREIGN])
    bmp = has(0, b"BM")
    plain = has(30, b"\0\0\0\0") | (has(30, b"\3\0\0\0") & has(54, b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"))
    plain &= has(28, b"\x18\0") | has(28, b"\x20\0") | (has(28, b"\x08\0") & has(30, b"\0\0\0\0"))
    plain &= has(15, b"\0\0\0") & ~has(14, b"\x0c")  # OS/2 has a shorter header
    rest = tf.where(sixteen_bits, _SIXTEEN_BITS, tf.where(foreign, _OTHER, _USUAL))
    return tf.where(bmp, tf.where(plain, _BMP, _OTHER), rest)


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP file with 24 or 32 bits per pixel, or with 8 and a palette."""
    image = tf.io.decode_bmp(encoded)

    def colors() -> tf.Tensor:
        numbers = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 0, 54), tf.uint8), tf.int32)
        start = 14 + numbers[14]
        used = tf.clip_by_value(numbers[46] + 256 * numbers[47], 0, 256)
        used = tf.where(used == 0, 256, used)
        palette = tf.io.decode_raw(tf.strings.substr(encoded, start, 4 * used), tf.uint8)
        palette = tf.reverse(tf.reshape(palette, [-1, 4])[:, :3], [1])  # stored as blue, green, red
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    rgb = tf.cond(tf.shape(image)[-1] == 1, colors, lambda: image[..., :3])
    return tf.ensure_shape(rgb, [None, None, 3])


def _why_range(values: tf.Tensor, reading: Reading) -> tf.Tensor:
    """Returns why values of 16 bits are refused, or ""."""
    largest = tf.reduce_max(values)
    if reading.max_value is not None:
        text, wrong = pillow_reader.too_bright(-1, reading.max_value), largest > reading.max_value
        before, after = text.split("-1")
        return tf.where(wrong, tf.strings.join([before, tf.strings.as_string(largest), after]), "")
    result = tf.constant("")
    for bound in (16383, 4095, 1023, 255):
        before, after = pillow_reader.too_dark(bound).split(str(bound), 1)
        described = tf.strings.join([before, tf.strings.as_string(largest), after])
        result = tf.where((largest > 0) & (largest <= bound), described, result)
    return result


def _why_foreign(encoded: tf.Tensor, reading: Reading) -> tf.Tensor:
    head = tf.strings.join([tf.strings.substr(encoded, 0, 16), b"\0" * 16])
    name = tf.constant("a BMP image with a compressed or small palette or with 16 bits per pixel")
    for text, position, content in _FOREIGN:
        name = tf.where(tf.strings.substr(head, position, len(content)) == content, text, name)
    reader, remedy = {
        "service": ("a data service", "set data.service=none"),
        "export": ("an export", "predict with the folder of the run"),
    }[reading.place]
    limits = f", but {reader} reads only JPEG, PNG, GIF and usual BMP images. Convert it to PNG or JPEG, or {remedy}"
    return tf.strings.join(["it is ", name, limits])


def _unless_refused(reason: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Returns the image; makes the graph fail if the reason is not empty."""
    with tf.control_dependencies([tf.debugging.Assert(reason == "", [tf.strings.join([_REFUSED, reason])])]):
        return tf.identity(image)
