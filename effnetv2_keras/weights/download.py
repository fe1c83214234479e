"""A file from the web: whole and with the right checksum under its name, or not at all (no TensorFlow)."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import tempfile
import threading
import urllib.request
from typing import Any, BinaryIO

import rich.console
import rich.progress
from absl import logging

from effnetv2_keras.weights.report import WeightsError

CONNECT_SECONDS = 1.5
"""How long the first byte may take, the name's look-up included."""

READ_SECONDS = 30.0
"""How long any later byte may take."""

_CHUNK = 1 << 20


def download(url: str, path: pathlib.Path, *, md5: str | None) -> None:
    """Downloads a file under a temporary name in the same folder, checks it, and renames it.

    Args:
        url: its address.
        path: where to put it; the folder is created if missing.
        md5: its checksum; None if none is published, which is said.

    Raises:
        WeightsError: if it cannot be had. The message tells how to put it there by hand; nothing is left behind.
    """
    by_hand = f"Download {url} yourself and put it, named {path.name}, into the folder {path.parent}."
    try:
        response = _open(url)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"Cannot download {url}: {error}. {by_hand}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with response, tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            _copy(response, file, path.name)
            file.close()
            found = md5_of(file.name)
            if md5 not in (None, found):
                raise WeightsError(f"{url} arrived damaged: its MD5 is {found}, it should be {md5}. {by_hand}")
            os.replace(file.name, path)
        except (OSError, http.client.HTTPException) as error:
            raise WeightsError(f"The download of {url} broke off: {error}. {by_hand}") from error
        finally:
            pathlib.Path(file.name).unlink(missing_ok=True)
    if md5 is None:
        logging.warning("No checksum of %s is published; it was taken as it came. Its MD5 is %s.", url, found)


def md5_of(path: str | os.PathLike[str]) -> str:
    """The MD5 of a file, hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open(url: str) -> Any:
    """Opens an address, or gives up after ``CONNECT_SECONDS``, which a socket's timeout does not hold a look-up to."""
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=READ_SECONDS))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS} seconds")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _copy(response: Any, file: BinaryIO | Any, name: str) -> None:
    """Copies a response to a file, showing how far it is; one that is shorter than it was to be is an error."""
    total = int(response.headers.get("Content-Length") or 0) or None
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.DownloadColumn())
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        size = 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            size += len(chunk)
            progress.advance(task, len(chunk))
    if total is not None and size != total:
        raise OSError(f"{size} of {total} bytes arrived")
