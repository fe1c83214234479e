"""Downloads a file and checks it; the file appears under its name only if it is complete. Needs no TensorFlow."""

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
"""Time limit for the first byte, including the DNS look-up, seconds."""

READ_SECONDS = 30.0
"""Time limit for any later byte, seconds."""

_CHUNK = 1 << 20


def download(url: str, path: pathlib.Path, *, md5: str | None) -> None:
    """Downloads a file under a temporary name in the same folder, checks it, and renames it.

    Args:
        url: address of the file.
        path: where to put the file; its folder is created if missing.
        md5: MD5 checksum, hexadecimal; None if none is published. In that case a warning says so.

    Raises:
        WeightsError: if the download fails or the checksum is wrong. The temporary file is removed, and the message
            explains how to download the file by hand.
    """
    by_hand = f"Download {url} yourself and save it as {path.name} in the folder {path.parent}."
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
                raise WeightsError(
                    f"The download of {url} is damaged: its MD5 is {found}, but should be {md5}. {by_hand}"
                )
            os.replace(file.name, path)
        except (OSError, http.client.HTTPException) as error:
            raise WeightsError(f"The download of {url} was interrupted: {error}. {by_hand}") from error
        finally:
            pathlib.Path(file.name).unlink(missing_ok=True)
    if md5 is None:
        logging.warning("%s has no published checksum, so the download was not checked. Its MD5 is %s.", url, found)


def md5_of(path: str | os.PathLike[str]) -> str:
    """Returns the MD5 of a file, hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open(url: str) -> Any:
    """Opens an address; raises ``TimeoutError`` after ``CONNECT_SECONDS``, also if the DNS look-up hangs.

    A socket's timeout does not include the DNS look-up.
    """
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
    """Copies a response to a file with a progress bar; raises ``OSError`` if the response is too short."""
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
