"""What the process is doing, and a line that says so if nothing was printed for a while (no TensorFlow).

Code says what it does with ``doing``. The command line shows it with ``shown``; elsewhere it costs nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, TextIO

FIRST_SECONDS, ON_TERMINAL, ELSEWHERE = 0.5, 1.0, 7.0
"""Seconds of silence before the first line of a process, before the line on a terminal, and before lines elsewhere."""
_LOOK_EVERY = 0.25


class Activity:
    """Something that takes time.

    Args:
        what: what it is, such as ``"listing the images"``.

    Attributes:
        text: what it is and how far it is; may be replaced while it goes on.
        began: when it began, seconds of ``time.monotonic``.
    """

    def __init__(self, what: str) -> None:
        self._what = self.text = what
        self.began = time.monotonic()

    def count(self, done: int, total: int) -> None:
        """Says how far it is."""
        self.text = f"{self._what} {done:,}/{total:,}"


_going_on: list[Activity] = []


@contextlib.contextmanager
def doing(text: str) -> Iterator[Activity]:
    """Says what the code in a ``with`` block does; inside, ``activity.count`` can say how far it is."""
    activity = Activity(text)
    _going_on.append(activity)
    try:
        yield activity
    finally:
        _going_on.remove(activity)


def going_on(text: str) -> None:
    """Replaces the text of the innermost activity and restarts its clock; does nothing if there is no activity."""
    if _going_on:
        _going_on[-1].text, _going_on[-1].began = text, time.monotonic()


def current(after: float = 0.0, deepest: int = 2) -> str:
    """Returns what is going on, and for how long: ``"stage 2/4 · 160 px: saving a checkpoint · 3 s"``.

    Args:
        after: seconds that it must have taken; before that, and if nothing is going on, the text is empty.
        deepest: number of activities to name: the innermost, and those around it.
    """
    if not (activities := _going_on[-deepest:]):
        return ""
    seconds = time.monotonic() - activities[-1].began
    return f"{': '.join(one.text for one in activities)} · {_duration(seconds)}" if seconds >= after else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class _Noticed:
    """Wraps a text stream and calls a function with the text before each write."""

    def __init__(self, stream: TextIO, before: Callable[[str], None]) -> None:
        self._stream, self._before = stream, before

    def write(self, text: str) -> int:
        self._before(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Shown:
    """Writes the current activity to a stream when nothing has been written for some seconds.

    On a terminal, one line is updated each second and removed before other output. Elsewhere, each text is a new line.
    """

    def __init__(self, stream: TextIO, otherwise: str, first: float = FIRST_SECONDS) -> None:
        self._stream, self._otherwise = stream, otherwise
        self._live = stream.isatty()
        self._wait, self._written, self._began = first, time.monotonic(), time.monotonic()
        self._line = self._within_line = False
        self._lock, self._ended = threading.RLock(), threading.Event()

    def note(self, text: str) -> None:
        """Notes that other text is about to be written."""
        if not text:
            return
        with self._lock:
            self.clear()
            self._wait, self._written = ON_TERMINAL if self._live else ELSEWHERE, time.monotonic()
            self._within_line = not text.endswith("\n")

    def clear(self) -> None:
        """Removes the line from a terminal."""
        with self._lock:
            if self._line:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
                self._line = False

    def look(self) -> None:
        """Writes the activity if it is time."""
        with self._lock:
            now = time.monotonic()
            if now - self._written < self._wait or self._ended.is_set():
                return
            text = current() or f"{self._otherwise} · {_duration(now - self._began)}"
            start = "\n" if self._within_line else ""
            if self._live:
                self._stream.write(f"{start}\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            else:
                self._stream.write(f"{start}{text}\n")
            self._stream.flush()
            self._wait, self._written = ON_TERMINAL if self._live else ELSEWHERE, now
            self._line, self._within_line = self._live, False

    def watch(self) -> None:
        """Looks until ``end``."""
        with contextlib.suppress(OSError, ValueError):  # the stream was closed
            while not self._ended.wait(_LOOK_EVERY):
                self.look()

    def end(self) -> None:
        """Ends ``watch`` and removes the line."""
        self._ended.set()
        self.clear()


@contextlib.contextmanager
def shown(otherwise: str) -> Iterator[None]:
    """Shows on standard error what is going on whenever nothing is printed, inside a ``with`` block.

    Args:
        otherwise: what to show where the code says nothing.
    """
    line, streams = _Shown(sys.stderr, otherwise), (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (_Noticed(stream, line.note) for stream in streams)
    thread = threading.Thread(target=line.watch, daemon=True, name="activity")
    thread.start()
    try:
        yield
    finally:
        line.end()
        sys.stdout, sys.stderr = streams
