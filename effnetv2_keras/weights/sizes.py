"""Checks sizes that a file of weights declares before its content is read or unpacked. Needs no TensorFlow."""

from __future__ import annotations

import gzip
import math
import pathlib
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from effnetv2_keras.basics import limits
from effnetv2_keras.weights.layout import PREPROCESSING, STEM_KERNEL, Array, Shape
from effnetv2_keras.weights.report import WeightsError

MOST_STATISTICS = 16
"""Largest number of channels whose mean and variance of pixels are read."""


def is_needed(name: str, shape: Shape, shapes: Mapping[str, Shape]) -> bool:
    """Returns whether a weight of a file can be loaded into the model; other weights must not be read.

    Args:
        name: canonical name of the weight.
        shape: its shape in the file, in TensorFlow's layout.
        shapes: shapes of the model's weights by canonical name. A stem kernel for RGB fits any number of channels. The
            statistics of pixels are always needed, because they tell how the file's network normalizes.
    """
    wanted = shapes.get(name)
    if name.startswith(PREPROCESSING):
        return math.prod(shape) <= MOST_STATISTICS
    if name == STEM_KERNEL and wanted and len(shape) == 4 and shape[2] == 3:
        wanted = (*wanted[:2], 3, *wanted[3:])
    return shape == wanted


def unread(shape: Shape) -> Array:
    """Returns a stand-in for a weight that is not read: zeros of that shape, which take no memory."""
    return np.broadcast_to(np.float32(0), shape)


def allowed(path: pathlib.Path, shapes: Mapping[str, Shape]) -> int:
    """Returns the largest allowed size of the unpacked content of an archive, bytes."""
    return limits.largest_unpacked(path.stat().st_size, 4 * sum(map(math.prod, shapes.values())))


def refuse(path: pathlib.Path, most: int) -> WeightsError:
    """Returns the error for an archive that unpacks to more than ``most`` bytes."""
    return WeightsError(
        f"{path} ({path.stat().st_size:,} bytes) unpacks to more than {most:,} bytes, so it was not read: that is more "
        "than weights of this model can take. If you trust the file, unpack it and pass the path of its content."
    )


def read_member(path: pathlib.Path, name: str, shapes: Mapping[str, Shape]) -> bytes:
    """Returns the content of a member of a zip archive; empty if there is no such member.

    Raises:
        WeightsError: if it is too large, or has a compression whose output cannot be limited.
    """
    most = allowed(path, shapes)
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return b""
        member = archive.getinfo(name)
        if member.file_size > most:
            raise refuse(path, most)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{path}: {name} is not stored or deflated, as Keras writes it. Save the model again.")
        with archive.open(member) as file:
            return file.read(member.file_size)  # read() without a number would unpack all, whatever file_size says


def check_members(path: pathlib.Path, shapes: Mapping[str, Shape]) -> None:
    """Raises ``WeightsError`` if all members of a zip archive together are too large."""
    most = allowed(path, shapes)
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > most:
            raise refuse(path, most)


class Bounded:
    """A file that can be read up to a number of bytes.

    Args:
        file: the file.
        path: the archive that it unpacks, for the message.
        most: the number of bytes.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, path: pathlib.Path, most: int) -> None:
        self._file, self._path, self._most, self._left = file, path, most, most

    def read(self, size: int) -> bytes:
        """Returns the next bytes; raises ``WeightsError`` if more than allowed have been read."""
        content = self._file.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise refuse(self._path, self._most)
        return content
