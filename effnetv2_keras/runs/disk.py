"""Writing to a run's folder so that neither a crash nor a full disk leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from effnetv2_keras.errors import UsageError

_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)


class RunFolderError(UsageError):
    """A folder that does not hold the run it should, or that cannot be used."""


class NoRoomError(RunFolderError):
    """A disk, or a quota, that is full."""


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file so that a reader, or a crash, never meets half of it."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partial_files(folder: pathlib.Path) -> None:
    """Removes what a ``write_atomically`` that was killed left in the folder, which may be missing."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def append_whole(path: pathlib.Path, text: str) -> None:
    """Appends text to a file; if that fails, the file is left as it was."""
    left = text.encode()
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise


def sync_folder(folder: pathlib.Path) -> None:
    """Makes renames in a folder outlive a loss of power, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_out_of_room(error: BaseException) -> bool:
    """Whether an error, of Python or TensorFlow, says that the disk or the quota is full."""
    if isinstance(error, OSError):
        return error.errno in _OUT_OF_ROOM
    return any(os.strerror(number) in str(error) for number in _OUT_OF_ROOM)


@contextlib.contextmanager
def full_disk_explained(path: pathlib.Path) -> Iterator[None]:
    """Turns the error of a full disk into one that says what to do.

    Args:
        path: what is written.

    Raises:
        NoRoomError: if there is no room.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_room(error):
            raise
        raise NoRoomError(
            f"No room to write {path}: {megabytes(free_bytes(path.parent))} are free. The checkpoints are unharmed; "
            "free some room, then the same command goes on from the newest."
        ) from error


def free_bytes(folder: pathlib.Path) -> int:
    """Room that is left where a folder is, or will be."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def megabytes(size: float) -> str:
    """A number of bytes in words."""
    return f"{size / 1e6:,.1f} MB"
