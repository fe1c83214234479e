"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from effnetv2_keras.runs.disk import RunFolderError, write_atomically

_LOCK, _HOLDER = ".lock", ".lock_holder.json"
LOCK_FILES = frozenset({_LOCK, _HOLDER})


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder against other processes; the operating system lets go of it when this one dies, however it dies.

    The folder is created if missing, and removed again if nothing was put into it.

    Raises:
        RunFolderError: if another process holds it.
    """
    is_new = not folder.exists()
    lock = filelock.FileLock(folder / _LOCK)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked or not (folder / _LOCK).exists():  # removed by its last holder in this very moment
        lock.release()
        raise RunFolderError(
            f"{folder} is in use by {_describe_holder(folder)}. Wait until it has ended, stop it (Ctrl-C or SIGTERM "
            "saves a checkpoint first), or choose another --model_dir."
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
    """Names who holds a folder, once the holder has left its note."""
    try:
        holder = json.loads((folder / _HOLDER).read_text())
        return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (OSError, ValueError, KeyError):
        return "another process"
