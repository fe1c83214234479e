"""Reads the image formats that TensorFlow cannot read, with Pillow (no TensorFlow)."""

from __future__ import annotations

import importlib
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.features
import PIL.Image

DARK_BELOW = 1 << 14
"""An image of 16 bits without a value from here on uses at most 14 of them; its range has to be set."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _SUBFILE_TYPE = 258, 262, 339, 254  # tags of TIFF
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_HEIF_PACKAGE = "pillow_heif"


class NotReadableError(ValueError):
    """An image that is refused; the message is a clause such as "it holds floats", without a period."""


def read(encoded: bytes, exif_orientation: bool, max_value: int) -> npt.NDArray[np.uint8]:
    """Returns the first image of a file.

    Args:
        encoded: the bytes of a WebP, TIFF, AVIF, HEIF or BMP file.
        exif_orientation: whether to turn the image upright as its EXIF data says. TIFF and HEIF files are
            always turned.
        max_value: value of white in images with 9 to 16 bits per channel; 0 for the largest that the bits can hold.

    Returns:
        The image, uint8 ``[H, W, 3]``. Transparency is dropped.

    Raises:
        NotReadableError: if the image is damaged, cannot be converted without guessing, or needs a package that is not
            installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and about large images
            image = _open(encoded)
            pixels = _to_rgb(image, max_value)
            orientation = image.getexif().get(_ORIENTATION) if exif_orientation else 1
    except NotReadableError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise NotReadableError(
            f"it has more than {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, the most that Pillow "
            "reads. Make it smaller, or convert it to PNG or JPEG"
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise NotReadableError("it is damaged, incomplete or of an unknown kind") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors for damaged files
        raise NotReadableError(f"it is damaged, incomplete or of an unknown kind ({_one_line(error)})") from error
    if orientation in _TURNS:
        pixels = np.asarray(PIL.Image.fromarray(pixels).transpose(_TURNS[orientation]))
    return np.ascontiguousarray(pixels)


def too_dark(largest: int) -> str:
    """Returns why an image of 16 bits with this largest value is refused if ``data.max_value`` is not set."""
    likely = next(bound for bound in (255, 1023, 4095, 16383) if largest <= bound)
    return (
        f"it has 16 bits per channel, but its largest value is {largest}, so it would be nearly black. If white is "
        f"{likely}, set --hparam_str=data.max_value={likely}; if the image really is that dark, set it to 65535"
    )


def too_bright(largest: int, max_value: int) -> str:
    """Returns why an image of 16 bits with a value above ``data.max_value`` is refused."""
    return f"its largest value is {largest}, above data.max_value={max_value}. Set data.max_value to the value of white"


def _open(encoded: bytes) -> PIL.Image.Image:
    if _is_avif(encoded):
        if not PIL.features.check("avif"):
            raise NotReadableError(
                "it is an AVIF image, which needs a Pillow that reads AVIF: pip install --upgrade pillow"
            )
    elif encoded[4:8] == b"ftyp":
        try:
            importlib.import_module(_HEIF_PACKAGE).register_heif_opener()
        except ImportError as error:
            raise NotReadableError("it is a HEIF image, which needs a package: pip install pillow-heif") from error
    return PIL.Image.open(io.BytesIO(encoded))


def _is_avif(encoded: bytes) -> bool:
    """Returns whether a file of the container that AVIF and HEIF share lists a brand of AVIF."""
    brands = encoded[8 : max(int.from_bytes(encoded[:4], "big"), 12)]
    return encoded[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def _to_rgb(image: PIL.Image.Image, max_value: int) -> npt.NDArray[np.uint8]:
    tags: Any = getattr(image, "tag_v2", {})  # of TIFF
    bits = max(_values(tags.get(_BITS, 8)))
    if tags.get(_SUBFILE_TYPE, 0) & 1:
        raise NotReadableError("its first image is only a preview, as in camera raw files. Convert it to PNG or JPEG")
    if image.mode == "F" or 3 in _values(tags.get(_SAMPLE_FORMAT, 1)):
        raise NotReadableError("it holds floats, whose range is not known. Convert it to PNG with 8 or 16 bits")
    if image.mode == "I" or bits > 16 or not set(_values(tags.get(_SAMPLE_FORMAT, 1))) <= {1, 4}:
        raise NotReadableError(
            "it holds signed numbers or more than 16 bits per channel. Convert it to PNG with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.int64)
        largest = (1 << bits) - 1 if bits > 8 else 65535
        gray = largest - gray if tags.get(_PHOTOMETRIC) == 0 else gray  # 0 is white
        return np.repeat(_scaled(gray, largest, max_value)[..., np.newaxis], 3, axis=-1)
    if image.mode == "LAB":
        raise NotReadableError("its colors are those of CIE L*a*b*. Convert it to RGB")
    image = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)).convert("RGB")
    pixels = np.asarray(image)
    return _check_high_bytes(pixels, max_value) if bits > 8 else pixels


def _scaled(values: npt.NDArray[np.int64], largest: int, max_value: int) -> npt.NDArray[np.uint8]:
    """Scales gray values to 0..255; ``formats`` does the same with PNG files."""
    top = int(values.max())
    if largest == 65535 and max_value in (0, 65535):
        if not max_value and 0 < top < DARK_BELOW:
            raise NotReadableError(too_dark(top))
        return (values >> 8).astype(np.uint8)
    white = max_value or largest
    if top > white:
        raise NotReadableError(too_bright(top, white))
    return (values * 255 // white).astype(np.uint8)


def _check_high_bytes(pixels: npt.NDArray[np.uint8], max_value: int) -> npt.NDArray[np.uint8]:
    """Returns the colors of a TIFF file with 16 bits per channel; Pillow keeps only the upper 8 bits of each."""
    if max_value not in (0, 65535):
        raise NotReadableError(
            "it is a color TIFF with more than 8 bits per channel, to which "
            f"data.max_value={max_value} cannot be applied. Convert it to PNG"
        )
    top = int(pixels.max())
    if not max_value and top < DARK_BELOW >> 8:
        raise NotReadableError(
            "it is a color TIFF with 16 bits per channel that would be nearly black. If white is less than 65535, "
            "convert it to PNG and set data.max_value to the value of white; if the image really is that dark, set it "
            "to 65535"
        )
    return pixels


def _values(tag: Any) -> tuple[int, ...]:
    return tag if isinstance(tag, tuple) else (tag,)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).translate({ord(mark): None for mark in "[]'\"<>"}) or type(error).__name__
