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
import uuid
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
_VERSION = 1  # of the content of copies; other versions are in other folders


@dataclasses.dataclass(frozen=True)
class _Form:
    """What the file of a copy contains.

    Attributes:
        name: how to call such copies.
        suffix: of the name of the file.
        bytes_per_pixel: size of a file; of JPEG, photographs have less.
        encode: maps an image, uint8 ``[H, W, 3]``, to the content of the file.
    """

    name: str
    suffix: str
    bytes_per_pixel: float
    encode: Callable[[tf.Tensor], tf.Tensor]


_DECODED = _Form("decoded copies", ".tensor", 3.0, tf.io.serialize_tensor)
_JPEG = _Form("JPEG copies", ".jpg", 0.6, functools.partial(tf.io.encode_jpeg, quality=95, chroma_downsampling=False))

_THEMSELVES = "the image files themselves"

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
    made again. An image that cannot be decoded is not copied, and the pipeline treats it as without copies. If copies
    cannot be written, or have no room, a warning says what training reads instead.

    Args:
        source: the images to train on.
        config: configuration of the run; without ``data.has_copies``, ``source`` itself is returned.
        on_copied: called in this thread after each group of images. If it raises an error, the copies so far are kept.
    """
    if not config.data.has_copies or not isinstance(source, FileSource):
        return source
    side = side_of_copies(config)
    copies, problem = _Copies(source, side, Reading.of(config.data)), ""
    for form in copies.forms():
        problem = copies.make(form, on_copied) or problem
        existing = copies.existing(form)
        if len(existing) == len(source.labels_of):
            break
    copied = _CopiedSource(source, existing, side, form)
    if problem:
        logging.warning("Training reads %s, because %s.", copied.reading, problem)
    return copied


def describe_reading(source: Source, config: Config) -> str:
    """Returns what training reads, the result of ``with_small_copies``; empty if the settings ask for no copies."""
    if not config.data.has_copies:
        return ""
    return source.reading if isinstance(source, _CopiedSource) else _THEMSELVES


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


class _Copies:
    """The copies of the images of a source: those that are there, and those to make.

    Args:
        source: the images.
        side: shorter side of the copies, pixels.
        reading: how to decode the images.

    Attributes:
        folder: folder of the copies.
    """

    def __init__(self, source: FileSource, side: int, reading: Reading) -> None:
        self._source, self._side, self._reading = source, side, reading
        kind = f"{side}px-{reading.exif_orientation:d}-{reading.max_value or 65535}-{_VERSION}"
        self.folder = _folder() / kind
        stamps = stamps_of(list(source.labels_of))
        self._names = {path: _name(path, stamp) for path, stamp in stamps.items() if stamp}

    def forms(self) -> Sequence[_Form]:
        """Returns the forms to try, best first, which only follow from the images and the settings.

        Decoded copies are of use if every image has one, because a batch has images of one kind.
        """
        usual, pixels = shorter_side(self._source), self._source.num_examples * self._side**2 * _USUAL_SHAPE
        large = usual is not None and usual >= _WORTH * self._side
        return [_DECODED, _JPEG] if large and pixels * _DECODED.bytes_per_pixel <= _DECODED_BYTES else [_JPEG]

    def _place(self, path: str, form: _Form) -> pathlib.Path:
        return self.folder / (self._names[path] + form.suffix)

    def _missing(self, form: _Form) -> list[str]:
        """Returns the images that have no copy and need one."""
        left = [path for path in self._names if not self._place(path, form).exists()]
        return [path for path in left if _is_large(path, self._side)] if form is _JPEG else left

    def make(self, form: _Form, on_copied: OnCopied | None) -> str:
        """Makes the missing copies of images that can be decoded; returns why they could not be written, or ""."""
        paths = self._missing(form)
        needed = len(paths) * self._side**2 * _USUAL_SHAPE * form.bytes_per_pixel
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if needed > _FREE * free:
                return f"{form.name} would take {needed / 1e9:.1f} GB of the {free / 1e9:.1f} GB free in {self.folder}"
            self._make(paths, form, on_copied)
        except OSError as error:
            return f"{form.name} cannot be written to {self.folder}: {error}"
        return ""

    def _make(self, paths: Sequence[str], form: _Form, on_copied: OnCopied | None) -> None:
        shrink = _shrinker(self._side, self._reading, form)

        def copy(path: str) -> None:
            with contextlib.suppress(tf.errors.OpError), tf.device("/cpu:0"):
                _write(self._place(path, form), shrink(tf.io.read_file(path)).numpy())

        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            for start in range(0, len(paths), _GROUP):
                list(pool.map(copy, paths[start : start + _GROUP]))
                if on_copied:
                    on_copied(min(start + _GROUP, len(paths)), len(paths))
        finally:
            pool.shutdown(cancel_futures=True)

    def existing(self, form: _Form) -> dict[str, str]:
        """Returns the paths of the copies that exist, by those of the images."""
        places = {path: self._place(path, form) for path in self._names}
        return {path: str(place) for path, place in places.items() if place.exists()}


class _CopiedSource(FileSource):
    """A source of the same images that reads other files, which are named as the original ones.

    Args:
        source: the images.
        copies: the file to read for some of the paths; for all of them, if the copies are decoded.
        side: shorter side of the copies, pixels.
        form: form of the copies.

    Attributes:
        reading: what this source reads, for people.
    """

    def __init__(self, source: FileSource, copies: Mapping[str, str], side: int, form: _Form) -> None:
        vars(self).update(vars(source))
        self._copies, self._decoded = list(copies.values()), form is _DECODED
        self.reading = _THEMSELVES
        if copies:
            others = len(source.labels_of) - len(copies)
            rest = f" and {others:,} of {_THEMSELVES}" if others else ""
            self.reading = f"{len(copies):,} {form.name} of {side} px{rest}"
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
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
