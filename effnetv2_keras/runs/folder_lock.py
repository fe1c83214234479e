"""A lock that lets only one process at a time use the folder of a run."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from effnetv2_keras.basics.small_files import parse_json, read_text
from effnetv2_keras.runs.disk import RunFolderError, write_atomically

_LOCK, _HOLDER = ".lock", ".lock_holder.json"
LOCK_FILES = frozenset({_LOCK, _HOLDER})


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder against other processes inside a ``with`` block.

    The operating system releases the lock when this process ends, even if it is killed. A missing folder is created,
    and removed at the end if it is still empty.

    Raises:
        RunFolderError: if another process holds the lock.
    """
    is_new = not folder.exists()
    lock = filelock.FileLock(folder / _LOCK)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked or not (folder / _LOCK).exists():  # the last holder may have just removed the file
        lock.release()
        raise RunFolderError(
            f"{folder} is in use by {_describe_holder(folder)}. Wait until that process ends, stop it (Ctrl-C or "
            "SIGTERM saves a checkpoint first), or choose another --model_dir."
        )
    try:
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": _now()}
        write_atomically(folder / _HOLDER, json.dumps(holder))
        yield
    finally:
        with contextlib.suppress(OSError):
            for name in LOCK_FILES:
                (folder / name).unlink(missing_ok=True)
            if is_new and not any(folder.iterdir()):
                folder.rmdir()
        lock.release()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _describe_holder(folder: pathlib.Path) -> str:
    """Returns a description of the process that holds a folder: its number, host and start, if it has noted them."""
    try:
        holder = parse_json(read_text(folder / _HOLDER))
        return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (ValueError, KeyError):
        return "another process"
