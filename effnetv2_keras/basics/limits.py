"""Limits on what a file may ask for, because its size on disk says little. Needs no TensorFlow.

A file of some kilobytes can describe a network of millions of blocks, or weights that unpack to many gigabytes. Weights
are compared with the shapes of the model that they are for before they are read; the other limits are here.
"""

from __future__ import annotations

from effnetv2_keras.errors import UsageError

MOST_BLOCKS = 1000
"""Largest number of blocks of a network. The deepest named network, ``efficientnetv2-xl``, has 100."""

MOST_CHANNELS = 1 << 16
"""Largest number of channels of a layer. ``efficientnet-l2`` has 8256."""

LARGEST_KERNEL = 31
"""Largest side of a kernel, pixels. The named networks have at most 5."""

LARGEST_IMAGE = 1 << 14
"""Largest side of the images of a network, pixels. The named networks have at most 800."""

DEEPEST_GROUP = 50
"""Largest depth of the groups of an HDF5 file, which takes quadratic time to walk. Keras nests models a few deep."""

_EXPANSION = 4
"""Unpacked size of weights / their size on disk. Real weights hardly compress; empty optimizer slots do."""

_COPIES = 8
"""Sets of the model's weights in one file. The reference code stores 4: weights, averages and two optimizer slots."""

_CHUNK_SLACK = 1 << 20
"""A chunk of HDF5 may be larger than the whole array, because HDF5 rounds it up. Bytes."""


def check(what: str, value: float, most: int) -> None:
    """Raises ``UsageError`` if a number is above its limit.

    Args:
        what: the quantity, as the subject of the message.
        value: the number.
        most: the limit.
    """
    if value > most:
        raise UsageError(f"{what} is {value:,}; it must be at most {most:,}.")


def largest_unpacked(on_disk: int, model: int) -> int:
    """Returns the largest allowed size of the unpacked content of an archive of weights, bytes.

    Args:
        on_disk: size of the archive, bytes.
        model: size of the weights of the model that they are for, bytes.
    """
    return _EXPANSION * on_disk + _COPIES * model


def largest_chunk(array: int) -> int:
    """Returns the largest allowed size of one unpacked chunk of an HDF5 array of this size, bytes."""
    return array + _CHUNK_SLACK
