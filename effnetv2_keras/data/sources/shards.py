"""Finds TFRecord shards by name or pattern, notices missing ones, and counts their records, also compressed ones."""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import pathlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.split_names import TEST, TRAIN, VALIDATION, possible_roles, role_of
from effnetv2_keras.data.sources.walking import is_leftover

_LOOK_AT = 4  # records of each shard whose features are checked before training
_SNIFF = 1 << 16  # bytes
_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_EITHER = 32 + zlib.MAX_WBITS  # lets zlib read both headers
_NUMBERED = re.compile(r"(.*?)-(\d+)-of-(\d+)(.*)")
_RECORD_FILE = re.compile(r".*(\.tfrec|\.tfrecord)s?\b.*|.*-\d+-of-\d+.*")


@dataclasses.dataclass(frozen=True)
class TfRecordFile:
    """One shard.

    Attributes:
        path: path of the file.
        num_records: number of records.
        first: the first records.
        compression: "", "GZIP" or "ZLIB", as for ``tf.data.TFRecordDataset``.
    """

    path: str
    num_records: int
    first: tuple[tf.train.Example, ...]
    compression: str = ""


def find_shards(root: pathlib.Path, name: str, pattern: str | None) -> list[str]:
    """Returns the paths of a split's shards, sorted.

    Args:
        root: folder of the data.
        name: name of the split; without a pattern the shards are ``NAME-*``.
        pattern: pattern of the shards' paths relative to the folder, such as ``train/*.tfrec``.

    Raises:
        DataError: if there are no shards, or without a pattern, if shards ``-of-N`` are missing or from two sets.
    """
    try:
        found = [
            path
            for path in root.glob(pattern or f"{glob.escape(name)}-*")
            if path.is_file() and not is_leftover(path.name)
        ]
    except (NotImplementedError, ValueError, IndexError) as error:
        raise DataError(
            f"The pattern {pattern!r} cannot be used: {error}. Write one relative to --data_dir, such as train/*.tfrec"
        ) from error
    if not found:
        raise DataError(_no_shards(root, name, pattern))
    if not pattern:
        every, found = found, record_files(found)
        others = sorted({path.name for path in every} - {path.name for path in found})
        if others:
            logging.info("%s: left out files that are not named like TFRecord files: %s.", root, ", ".join(others[:5]))
    problem = _incomplete(found)
    if problem and not pattern:
        raise DataError(
            f"{root}: {problem} Copy what is missing and remove what does not belong there. To use the files that are "
            f"there, give their pattern, such as data.train_pattern={name}-* or data.eval_pattern={name}-*"
        )
    if problem:
        logging.warning("%s: %s", root, problem)
    return sorted(map(str, found))


def record_files(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the paths without other files, such as ``train-labels.csv``, if some are named like TFRecord files."""
    return [path for path in paths if _RECORD_FILE.fullmatch(path.name)] or list(paths)


def _incomplete(paths: Sequence[pathlib.Path]) -> str | None:
    """Returns which shards ``NAME-00000-of-N`` are missing or there twice, or None."""
    sets: dict[tuple[pathlib.Path, str], dict[int, list[int]]] = {}
    for path in paths:
        match = _NUMBERED.fullmatch(path.name)
        if match:
            name, number, total, _ = match.groups()
            sets.setdefault((path.parent, name), {}).setdefault(int(total), []).append(int(number))
    for (_, name), by_total in sets.items():
        if len(by_total) > 1:
            totals = " and ".join(f"-of-{total:05d}" for total in sorted(by_total))
            return f"the shards {name}-* are from several sets, {totals}, which may have the same records."
        ((total, numbers),) = by_total.items()
        twice = sorted(number for number, count in collections.Counter(numbers).items() if count > 1)
        if twice:
            return f"the shards {name}-* have the number {twice[0]:05d} twice."
        first = 1 if total in numbers and 0 not in numbers else 0
        missing = sorted(set(range(first, first + total)) - set(numbers))
        if missing:
            listed = ", ".join(f"{number:05d}" for number in missing[:10]) + (" ..." if len(missing) > 10 else "")
            return f"{len(missing)} of {total} shards {name}-* are missing: {listed}."
    return None


def _no_shards(root: pathlib.Path, name: str, pattern: str | None) -> str:
    """Returns the error message if a split has no shards; it gives the record files that there are."""
    others = sorted(path.relative_to(root) for path in root.rglob("[!.]*") if _RECORD_FILE.fullmatch(path.name))
    kinds = list(dict.fromkeys((path.parent / re.sub(r"\d+", "*", path.name)).as_posix() for path in others))
    message = f"{root} has no files {pattern or f'{name}-*'}. "
    if kinds:
        message += f"It has {', '.join(kinds[:5])}{' ...' if len(kinds) > 5 else ''}. "
    if not pattern:
        message += f"Put the TFRecord shards there as {name}-00000-of-01024 and so on, choose another split, or give "
    else:
        message += "Give "
    roles = {role: kind for kind in reversed(kinds) if (role := _role(kind))}
    train, evaluation = roles.get(TRAIN), roles.get(VALIDATION) or roles.get(TEST)
    if not train or not evaluation:
        train, evaluation = "train/*.tfrec", "val/*.tfrec"
    return message + f"patterns of the files: data.train_pattern={train},data.eval_pattern={evaluation}"


def _role(kind: str) -> str | None:
    """Returns the role that the name or the folder of record files gives them."""
    parts = [re.sub(r"(\.\w+)+$|\*", "", part) for part in reversed(kind.split("/"))]
    return next((role for part in parts if (role := role_of(part) or possible_roles([part]).get(part))), None)


def compression_of(path: str) -> str:
    """Returns how a TFRecord file is compressed: "GZIP", "ZLIB", or "" if it is not."""
    with open(path, "rb") as file:
        start = file.read(_SNIFF)
    if not start.startswith((_GZIP, *_ZLIB)):
        return ""
    try:  # the length of a record may begin with the same bytes
        zlib.decompressobj(_EITHER).decompress(start)
    except zlib.error:
        return ""
    return "GZIP" if start.startswith(_GZIP) else "ZLIB"


def records_of(path: str) -> tf.data.Dataset:
    """Returns the records of a file, compressed or not: string scalars."""
    return tf.data.TFRecordDataset(os.fsencode(path), compression_of(path), buffer_size=1 << 20)


def open_shard(path: str) -> TfRecordFile:
    """Counts the records of a file and parses the first ones; of the others only the lengths are read.

    A compressed file is read as a whole.

    Raises:
        DataError: if the file is empty or damaged.
    """
    count, first, compression = 0, [], ""
    try:
        compression = compression_of(path)
        for record in records_of(path).as_numpy_iterator() if compression else _records(path, _LOOK_AT):
            if record is not None and count < _LOOK_AT:
                first.append(tf.train.Example.FromString(record))
            count += 1
    except Exception as error:
        raise DataError(
            f"{path} is not a complete TFRecord file of tf.train.Example: it ends early or is damaged at record "
            f"{count}. Write or copy it again."
        ) from error
    if not count:
        raise DataError(f"The shard {path} is empty. Write or copy it again; if it is meant to be empty, remove it.")
    return TfRecordFile(path, count, tuple(first), compression)


def _records(path: str, num_contents: int) -> Iterator[bytes | None]:
    """Yields the contents of the first ``num_contents`` records of a file, then None for each of the others.

    A record consists of its length (uint64, little endian), a checksum of the length (4 bytes), its contents, and a
    checksum of the contents (4 bytes) (TensorFlow, ``lib/io/record_writer.h``).
    """
    size, position = os.path.getsize(path), 0
    with open(path, "rb", buffering=0) as file:
        while position < size:
            (length,) = struct.unpack("<Q", os.pread(file.fileno(), 8, position))
            if position + length + 16 > size:
                raise EOFError
            yield os.pread(file.fileno(), length, position + 12) if num_contents > 0 else None
            position, num_contents = position + length + 16, num_contents - 1
