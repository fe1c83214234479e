"""Downloads a file with pooch, and adds retries with pauses, resuming and a lock. Needs no TensorFlow.

While it is incomplete, the file is called ``.NAME.part``. It appears under its name only if it is complete and has the
published checksum.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import filelock
import pooch
import requests
import rich.console
import rich.progress
from absl import logging

TIMEOUT = (60.0, 180.0)
"""Time limits for the connection and for the next bytes, seconds."""

ATTEMPTS = 4
"""Number of attempts in a row that may bring no byte; an attempt that brings some starts the count again."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Pause after a failed attempt, seconds. It doubles with every further attempt."""

REPORT_SECONDS = 5.0
"""Seconds between two lines of progress where the output is not a terminal."""

_CHUNK = 1 << 14  # a chunk is counted when it is complete, and should take few seconds on a slow line too
AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""Status codes that may be better next time."""

_ERRORS = (requests.RequestException, EOFError)  # urllib3's own errors come as those of requests


class DownloadError(Exception):
    """A download failed for good; the message says why."""


def download(url: str, path: pathlib.Path, *, md5: str | None) -> None:
    """Downloads a file unless it is there with the published checksum.

    What an interrupted download left is continued if the server can send parts of a file. Several processes may ask for
    the same file at once: one downloads it, and the others wait.

    Args:
        url: address, http or https.
        path: where to put the file; its folder is created if missing.
        md5: MD5 checksum, hexadecimal; None if none is published. In that case a warning says so.

    Raises:
        DownloadError: if the server cannot be reached or does not have the file, the file has another checksum twice,
            or the folder cannot be written.
    """
    known = f"md5:{md5}" if md5 else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path), _quiet_pooch():
            if path.exists() and not md5:  # pooch has nothing to compare it with
                return
            shelf = pooch.create(path.parent, "", registry={path.name: known}, urls={path.name: url}, retry_if_failed=1)
            shelf.fetch(path.name, downloader=_Resuming(path, checked=bool(md5)))
    except ValueError as error:  # from pooch, which names both checksums
        both = str(error).partition(". Deleted")[0]
        raise DownloadError(
            f"The file at {url} is not the published one, also after a second download: {both}"
        ) from error
    except OSError as error:
        raise DownloadError(f"Cannot write {path}: {error}") from error
    if md5 is None:
        logging.warning(
            "%s has no published checksum, so the download was not checked. Its MD5 is %s.", url, md5_of(path)
        )


def md5_of(path: str | os.PathLike[str]) -> str:
    """Returns the MD5 of a file, hexadecimal."""
    return pooch.file_hash(os.fspath(path), alg="md5")


class Progress:
    """Shows on standard error how much of a file has arrived: a bar on a terminal, otherwise lines.

    Args:
        name: name of the file.
        source: address, for the first line.
    """

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source
        self._console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=10),
            rich.progress.DownloadColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None)
        self._told = time.monotonic()

    @contextlib.contextmanager
    def shown(self) -> Iterator[Progress]:
        """Shows the progress inside a ``with`` block."""
        self.say(f"Downloading {self._name} from {self._source}")
        with self._bar:
            yield self

    def update(self, size: int, total: int | None) -> None:
        """Shows that ``size`` of ``total`` bytes have arrived; None if the server did not say how many there are."""
        self._bar.update(self._task, completed=size, total=total)
        if self._bar.disable and (time.monotonic() - self._told >= REPORT_SECONDS or size == total):
            self._told = time.monotonic()
            of = f" of {total / 1e6:,.1f}" if total else ""
            self.say(f"{self._name}: {size / 1e6:,.1f}{of} MB")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Resuming:
    """A downloader for pooch that continues what is in ``.NAME.part`` and tries again after errors.

    Args:
        path: where the file will be.
        checked: whether the file is compared with a checksum afterwards. Without one, a part is continued only if the
            server says that the file is still the same (its ``ETag``, which is kept in ``.NAME.etag``).
    """

    def __init__(self, path: pathlib.Path, *, checked: bool) -> None:
        self._part, self._tag = (path.with_name(f".{path.name}.{end}") for end in ("part", "etag"))
        self._name, self._checked = path.name, checked

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        """Downloads the file from ``url`` to ``output_file``; raises ``DownloadError`` or ``OSError``."""
        with Progress(self._name, url).shown() as progress, requests.Session() as session:
            failed, pause = 0, FIRST_PAUSE
            while True:
                before = self._size()
                try:
                    self._get(session, url, progress)
                    break
                except _ERRORS as error:
                    arrived = self._size() > before
                    failed, pause = (1, FIRST_PAUSE) if arrived else (failed + 1, pause)
                    if failed >= ATTEMPTS or not _may_pass(error):
                        raise DownloadError(f"Cannot download {url}: {_reason(error)}") from error
                    wait = min(max(pause, _asked_pause(error)), LONGEST_PAUSE)
                    progress.say(f"{self._name}: {_reason(error)}; trying again in {wait:g} s")
                    time.sleep(wait)
                    pause *= 2
        os.replace(self._part, output_file)
        self._tag.unlink(missing_ok=True)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _get(self, session: requests.Session, url: str, progress: Progress) -> None:
        """Appends the rest of the file to the part; starts again if the server sends the whole file."""
        tag = self._tag.read_text("ascii") if self._tag.exists() else ""
        start = self._size() if tag or self._checked else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers.update({"Range": f"bytes={start}-"}, **({"If-Range": tag} if tag else {}))
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if start and response.status_code == 416:  # the part is as long as the file, or longer
                self._part.unlink()
                raise EOFError("the part that was there does not fit the file")
            response.raise_for_status()
            sent = re.fullmatch(rf"bytes {start}-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if response.status_code != 206 or not sent:
                start = 0
            announced = sent[1] if start and sent else response.headers.get("Content-Length")
            total = int(announced) if announced else None
            self._tag.write_text(_strong(response.headers.get("ETag", "")), "ascii")
            with self._part.open("r+b" if start else "wb") as file:
                size = file.seek(start)
                progress.update(size, total)
                for chunk in response.iter_content(_CHUNK):
                    size += file.write(chunk)
                    progress.update(size, total)
        if total is not None and size != total:
            raise EOFError(f"{size:,} of {total:,} bytes arrived")


def _strong(tag: str) -> str:
    """Returns an ``ETag`` that two equal files share; empty for a weak one, which similar files may share."""
    return tag if tag.startswith('"') and tag.isascii() else ""


def _may_pass(error: Exception) -> bool:
    """Returns whether another attempt can help."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in AGAIN
    return not isinstance(error, (ValueError, requests.TooManyRedirects))  # ValueError: an address that is none


def _asked_pause(error: Exception) -> float:
    """Returns the pause that the server asks for in ``Retry-After``, seconds; 0 if it does not."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _reason(error: Exception) -> str:
    """Returns why a request failed, without the names of Python objects that requests writes."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", None) or inner)
    return re.sub(r"^<.*?>: |^\S*(?:Connection|Connect)\S*\(.*?\): ", "", text).strip() or type(error).__name__


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes and threads from downloading the same file at the same time."""
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        rich.console.Console(stderr=True).print(f"Waiting for another process that downloads {path.name}", markup=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Silences pooch's notices, because ``Progress`` says the same."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)
