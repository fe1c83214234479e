"""Writing of files so that a crash or a full disk never leaves a partial file, and errors about full disks."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from typing import IO

from effnetv2_keras.errors import UsageError

_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)


class RunFolderError(UsageError):
    """A folder that cannot be used, or that does not hold the expected run."""


class NoRoomError(RunFolderError):
    """A full disk, or an exhausted disk quota."""


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically: a reader sees the old or the new content, even after a crash."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Gives a new file to write, which replaces ``path`` after a ``with`` block that raises no error.

    Args:
        path: the file to create or replace.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partial_files(folder: pathlib.Path) -> None:
    """Removes the temporary files that a killed ``write_atomically`` left in a folder; the folder may be missing."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def append_whole(path: pathlib.Path, text: str) -> None:
    """Appends text to a file; if writing fails, the file is unchanged."""
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
    """Makes renames in a folder survive a power failure, on file systems that support it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_out_of_room(error: BaseException) -> bool:
    """Returns whether an error of Python or TensorFlow means that the disk is full or the quota is exhausted."""
    if isinstance(error, OSError):
        return error.errno in _OUT_OF_ROOM
    return any(os.strerror(number) in str(error) for number in _OUT_OF_ROOM)


@contextlib.contextmanager
def full_disk_explained(path: pathlib.Path) -> Iterator[None]:
    """Turns errors about a full disk into a ``NoRoomError`` that says what to do, inside a ``with`` block.

    Args:
        path: the file or folder that the block writes.

    Raises:
        NoRoomError: if the disk is full or the quota is exhausted.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_room(error):
            raise
        raise NoRoomError(
            f"Not enough disk space to write {path}: {megabytes(free_bytes(path.parent))} are free. The checkpoints "
            "are intact. Free disk space; the same command then resumes from the newest one."
        ) from error


def free_bytes(folder: pathlib.Path) -> int:
    """Returns the free space on the disk of a folder, bytes; the folder may not exist yet."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def megabytes(size: float) -> str:
    """Returns a number of bytes as text, in units of 10^6 bytes, such as ``"1.5 MB"``."""
    return f"{size / 1e6:,.1f} MB"


def no_room_for_checkpoints(
    folder: pathlib.Path, needed: int, *, keep: int, each: int, steps: Sequence[int], advice: str
) -> NoRoomError:
    """Returns the error that says how much disk space checkpoints need, how much is free, and which step is saved.

    Args:
        folder: folder of the run.
        needed: bytes that are needed.
        keep: number of recent checkpoints that the run keeps.
        each: bytes of a checkpoint.
        steps: steps of the recent checkpoints, the newest first.
        advice: what to do, without a period.
    """
    kept = f"The run is saved at step {steps[0]}" if steps else "There is no checkpoint yet"
    return NoRoomError(
        f"Not enough disk space for checkpoints in {folder}, which keeps {keep} recent ones and the best one: "
        f"{megabytes(needed)} are needed ({megabytes(each)} each) and {megabytes(free_bytes(folder))} are free. "
        f"{kept}. {advice}."
    )
