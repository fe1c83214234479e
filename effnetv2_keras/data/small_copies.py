"""Small copies of large image files in the cache folder, from which training reads its crops much faster.

Decoding a photograph takes longer than a training step of a small network on it, and training decodes it once per
epoch. A copy is as large as the largest crop needs: where a crop would be reduced to the image size of the last stage,
it still is. Copies are decoded images if all of them together take at most 2 GB, else JPEG files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import PIL.Image
import tensorflow as tf
from absl import logging

from effnetv2_keras.config import Config
from effnetv2_keras.data.cropping import CROPPINGS
from effnetv2_keras.data.decode import decode
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.data.sources.base import FileSource, Record, Source
from effnetv2_keras.data.splits import shorter_side
from effnetv2_keras.data.verified_files import Stamp, stamps_of
from effnetv2_keras.environment import cache_folder

_WORTH = 1.5
"""An image is copied if its shorter side is at least so many times that of a copy."""
_FREE = 0.5  # share of the free disk space that copies may take
_DECODED_BYTES = 2e9  # that copies may take as decoded images, because the system should keep them in memory
_USUAL_SHAPE = 4 / 3  # longer side / shorter side
_GROUP = 64


@dataclasses.dataclass(frozen=True)
class _Form:
    """What the file of a copy contains.

    Attributes:
        suffix: of the name of the file.
        bytes_per_pixel: size of a file; of JPEG, photographs have less.
        no_room: start of the warning that there is no room for such files.
        encode: maps an image, uint8 ``[H, W, 3]``, to the content of the file.
    """

    suffix: str
    bytes_per_pixel: float
    no_room: str
    encode: Callable[[tf.Tensor], tf.Tensor]


_DECODED = _Form(".tensor", 3.0, "Small copies of the images are JPEG files: decoded images", tf.io.serialize_tensor)
_JPEG = _Form(
    ".jpg",
    0.6,
    "Training reads the large images: small copies",
    functools.partial(tf.io.encode_jpeg, quality=95, chroma_downsampling=False),
)


OnCopied = Callable[[int, int], None]
"""Called with the number of images copied so far, and the number of images to copy."""


def side_of_copies(config: Config) -> int:
    """Returns the shorter side of the copies, pixels, so that no training crop has to be enlarged for want of pixels.

    That is the largest image size divided by the side of the smallest crop, as a share of the image's shorter side.
    """
    cropping, data = CROPPINGS[config.data.pipeline], config.data
    area, aspect = data.crop_area or cropping.area, data.crop_aspect or cropping.aspect
    smallest = math.sqrt(area[0] * min(aspect[0], 1 / aspect[1], 1.0))
    largest = max(stage.image_size for stage in config.plan(config.progressive.stages))
    return math.ceil(largest / smallest / 8) * 8


def with_small_copies(source: Source, config: Config, on_copied: OnCopied | None = None) -> Source:
    """Returns a source that reads small copies of its large images, which it makes first if they are not there.

    Copies are kept in ``small`` in ``cache_folder()``, so later runs find them; those of a file that has changed are
    made again. An image that cannot be decoded is not copied, and the pipeline treats it as without copies.

    Args:
        source: the images to train on.
        config: configuration of the run; without ``data.has_copies``, ``source`` itself is returned.
        on_copied: called in this thread after each group of images. If it raises an error, the copies so far are kept.
    """
    if not config.data.has_copies or not isinstance(source, FileSource):
        return source
    side, reading = side_of_copies(config), Reading.of(config.data)
    folder = _folder() / f"{side}px-{reading.exif_orientation:d}-{reading.max_value or 65535}"
    names = {path: _name(path, stamp) for path, stamp in stamps_of(list(source.labels_of)).items() if stamp}
    free = _free(folder)
    if free is None:
        return source

    def copied(form: _Form) -> _CopiedSource:
        places = {path: folder / (name + form.suffix) for path, name in names.items()}
        left = [path for path, place in places.items() if not place.exists()]
        if form is _JPEG:
            left = [path for path in left if _is_large(path, side)]
        if _is_room(len(left) * side * side, form, free, folder):
            _make(left, places, _shrinker(side, reading, form), on_copied)
        copies = {path: str(place) for path, place in places.items() if place.exists()}
        return _CopiedSource(source, copies, decoded=form is _DECODED)

    if _may_be_decoded(source, side) and (decoded := copied(_DECODED)).has_all:
        return decoded
    return copied(_JPEG)


def describe_copies(source: Source, config: Config) -> str:
    """Returns a sentence about the copies that training will read; empty if there are none of usual images."""
    side, usual = side_of_copies(config), shorter_side(source)
    if not config.data.has_copies or usual is None or usual < _WORTH * side:
        return ""
    return (
        f"Training reads copies of {side} px on the shorter side, which are made before the first step, in "
        f"{_folder()}; data.cache=none reads the images themselves."
    )


def _folder() -> pathlib.Path:
    return cache_folder() / "small"


def _may_be_decoded(source: FileSource, side: int) -> bool:
    """Returns whether copies should be decoded images, which only follows from the images and the settings."""
    usual, pixels = shorter_side(source), source.num_examples * side * side * _USUAL_SHAPE
    return usual is not None and usual >= _WORTH * side and pixels * _DECODED.bytes_per_pixel <= _DECODED_BYTES


class _CopiedSource(FileSource):
    """A source of the same images that reads other files, which are named as the original ones.

    Args:
        source: the images.
        copies: the file to read for some of the paths.
        decoded: whether the copies are of the form ``_DECODED``; then the source is of use only if it has all.

    Attributes:
        has_all: whether there is a copy of every image.
    """

    def __init__(self, source: FileSource, copies: Mapping[str, str], *, decoded: bool) -> None:
        vars(self).update(vars(source))
        self._copies, self._decoded, self.has_all = list(copies.values()), decoded, len(copies) == len(source.labels_of)
        files = [copies.get(path, path) for path, _ in source.extents()]
        self._contents = tf.constant([*map(os.fsencode, files)])

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``."""
        if all(map(os.path.exists, self._copies)):
            return super().check_integrity()
        return (
            f"Small copies of images in {_folder()} have been removed. Run the same command again to resume; it "
            "makes them anew."
        )

    def lookup(self, index: tf.Tensor) -> Record:
        """See ``RandomAccessSource.lookup``; the image is the copy, decoded if all are."""
        content = tf.io.read_file(tf.gather(self._contents, index))
        if self._decoded:
            content = tf.ensure_shape(tf.io.parse_tensor(content, tf.uint8), [None, None, 3])
        return {**super().lookup(index), "image": content}


def _name(path: str, stamp: Stamp) -> str:
    """Returns the name of the copy of a file, without suffix, which is another one after the file has changed."""
    text = f"{os.path.realpath(path)} {stamp[0]} {stamp[1]}"
    digest = hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()
    return f"{digest[:2]}/{digest}"


def _is_large(path: str, side: int) -> bool:
    """Returns whether an image is so large that a copy saves time; reads only the head of the file."""
    with contextlib.suppress(Exception), PIL.Image.open(path) as image:
        return min(image.size) >= _WORTH * side
    return False


def _free(folder: pathlib.Path) -> float | None:
    """Returns how many bytes copies may take in a folder, which is made; None after a warning if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _FREE * shutil.disk_usage(folder).free
    except OSError as error:
        logging.warning("Training reads the large images, because small copies cannot be written: %s", error)
        return None


def _is_room(square_pixels: int, form: _Form, free: float, folder: pathlib.Path) -> bool:
    """Returns whether copies have room on the disk, which they need if there are any; warns if not.

    Args:
        square_pixels: pixels of the copies if they were square.
        form: form of the copies.
        free: bytes that they may take.
        folder: folder of the copies.
    """
    needed = square_pixels * _USUAL_SHAPE * form.bytes_per_pixel
    if needed > free:
        logging.warning(
            "%s would take %.1f GB of the %.1f GB free in %s.",
            form.no_room, needed / 1e9, free / _FREE / 1e9, folder,
        )  # fmt: skip
    return needed <= free


def _make(
    paths: Sequence[str],
    places: Mapping[str, pathlib.Path],
    shrink: Callable[[tf.Tensor], tf.Tensor],
    on_copied: OnCopied | None,
) -> None:
    def copy(path: str) -> None:
        with contextlib.suppress(OSError, tf.errors.OpError), tf.device("/cpu:0"):
            _write(places[path], shrink(tf.constant(pathlib.Path(path).read_bytes())).numpy())

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(paths), _GROUP):
            list(pool.map(copy, paths[start : start + _GROUP]))
            if on_copied:
                on_copied(min(start + _GROUP, len(paths)), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)


def _shrinker(side: int, reading: Reading, form: _Form) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from the bytes of an image file to those of its copy, which is never larger."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def shrink(encoded: tf.Tensor) -> tf.Tensor:
        image = decode(encoded, reading)
        shape = tf.cast(tf.shape(image)[:2], tf.float64)
        size = tf.cast(tf.round(shape * tf.minimum(side / tf.reduce_min(shape), 1)), tf.int32)
        small = tf.image.resize(image, size, method="area")
        return form.encode(tf.cast(tf.round(small), tf.uint8))

    return shrink


def _write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        partial = pathlib.Path(file.name)
        try:
            file.write(content)
            file.close()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
