"""Remembers which files of a folder were verified, so that the next run only verifies those that changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from absl import logging

from effnetv2_keras.environment import cache_folder

Stamp = tuple[int, int]
"""Size of a file, bytes, and the time of its last change, nanoseconds."""

_CHUNK = 1024
_THREADS = 16  # which wait for the file system


class VerifiedFiles:
    """The files below a folder that could be decoded, with checksums of their contents.

    They are kept in one JSON file for each folder of data, in the folder ``verified`` of ``cache_folder()``, because
    data is often read-only. A file there that is missing, damaged or of another version of TensorFlow counts as empty,
    and nothing fails if it cannot be written. Unreadable files are not remembered, so they are tried again.

    Args:
        folder: the folder of the data.
        reading: how the files are read; what was verified in another way does not count.
    """

    def __init__(self, folder: str | os.PathLike[str], reading: str = "") -> None:
        self._folder, self._prefix = os.path.realpath(folder), os.path.join(os.path.abspath(folder), "")
        key = hashlib.blake2b(os.fsencode(self._folder), digest_size=16).hexdigest()
        self._path = cache_folder() / "verified" / f"{key}.json"
        self._format = f"1, TensorFlow {tf.__version__}, {reading}"
        self._known = self._read()

    def digests(self, stamps: Mapping[str, Stamp | None]) -> dict[str, str]:
        """Returns the checksums of the files that have not changed since they were verified, by path.

        Args:
            stamps: result of ``stamps_of``.
        """
        found = {path: self._known.get(self._name(path)) for path in stamps}
        return {path: entry[2] for path, entry in found.items() if entry and (entry[0], entry[1]) == stamps[path]}

    def remember(self, digests: Mapping[str, str], stamps: Mapping[str, Stamp | None]) -> None:
        """Adds verified files and drops those that no longer exist; warns if the result cannot be written.

        Args:
            digests: checksum of each verified file, by path.
            stamps: result of ``stamps_of`` from before the files were read.
        """
        known = {self._name(path): [*stamp, digests[path]] for path in digests if (stamp := stamps[path])}
        others = {name: entry for name, entry in self._known.items() if name not in known}
        known.update((name, entry) for name, entry in others.items() if os.path.exists(self._place(name)))
        text = json.dumps({"format": self._format, "folder": self._folder, "files": known})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, prefix=".", delete=False) as file:
                partial = pathlib.Path(file.name)
                try:
                    file.write(text)
                    file.close()
                    os.replace(partial, self._path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            logging.warning("Cannot remember which files were verified, so the next run verifies them again: %s", error)
        self._known = known

    def _read(self) -> dict[str, list[Any]]:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(self._path.read_text())
            entries = dict(content["files"])
            if content["format"] == self._format and all(map(_is_entry, entries.values())):
                return entries
        return {}

    def _name(self, path: str) -> str:
        """Returns the path relative to the folder, or the absolute path of a file elsewhere."""
        absolute = os.path.abspath(path)
        return absolute[len(self._prefix) :] if absolute.startswith(self._prefix) else absolute

    def _place(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _is_entry(entry: Any) -> bool:
    """Returns whether this is ``[size, time, checksum]``."""
    return isinstance(entry, list) and [type(value) for value in entry] == [int, int, str]


def stamps_of(paths: Sequence[str]) -> dict[str, Stamp | None]:
    """Returns size and time of each file, or None if it cannot be found; asks in parallel, for remote storage."""

    def stamp(path: str) -> Stamp | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(
            zip(paths, (found for part in pool.map(lambda chunk: [*map(stamp, chunk)], chunks) for found in part))
        )
