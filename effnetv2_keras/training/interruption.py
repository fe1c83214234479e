"""Signals: Ctrl-C and SIGTERM end a run with a checkpoint after the current step, or at once if all is saved.

Python runs a signal handler only between two instructions of the main thread, which may be in native code for minutes.
So ``answered`` starts a thread, which answers each signal at once and ends the process if the main thread does not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from effnetv2_keras.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_INTERRUPTED = 75
"""Exit status of a process that a signal or a lost worker ended without loss; the same command resumes it
(EX_TEMPFAIL)."""
_PATIENCE = 10.0
"""Seconds within which the main thread must end the process when nothing is left to save."""


@dataclasses.dataclass
class StopRequest:
    """A request to end the run; it is false until a signal arrives.

    Attributes:
        name: name of the signal, such as ``"SIGTERM"``; empty before it arrives.
        first: what the process does first after a signal, such as ``"saving"``; if empty, nothing would be lost, and a
            signal raises ``KeyboardInterrupt`` at once.
        shared: whether other workers must stop after the same step, so that no signal ends this one at once.
    """

    name: str = ""
    first: str = "saving"
    shared: bool = True
    _waits: bool = False

    def __bool__(self) -> bool:
        return bool(self.name)

    def wait(self) -> None:
        """Sleeps until a signal arrives."""
        while not self:
            time.sleep(0.2)

    @property
    def ends_at_once(self) -> bool:
        """Whether a signal raises ``KeyboardInterrupt``."""
        return not self.first or self._waits

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Lets a signal end a ``with`` block that only waits, by ``KeyboardInterrupt``; then save what is to save."""
        self._waits = not self.shared
        try:
            yield
        finally:
            self._waits = False

    def hold(self) -> None:
        """Notes that something would be lost without a checkpoint."""
        self.first = "saving"

    def saved(self, path: str | None = None) -> None:
        """Notes that nothing would be lost; does nothing if the request is shared with other workers.

        Args:
            path: the checkpoint; None if there is nothing to save yet.

        Raises:
            Interrupted: if a signal has arrived.
        """
        if self.shared:
            return
        self.first = ""
        if self:
            raise Interrupted(self.message(path))

    def message(self, path: str | None = None) -> str:
        """Returns what to say at the end, with the checkpoint if one was saved just now."""
        if path:
            return f"{self.name}: saved {path}. The same command resumes from this checkpoint."
        return f"{self.name}: stopped, and nothing is lost. The same command resumes the run."


_requests: list[StopRequest] = []
_listening: list[threading.Thread] = []


@contextlib.contextmanager
def stop_on_signal(first: str = "saving") -> Iterator[StopRequest]:
    """Yields a request, which the first SIGINT or SIGTERM sets; a second signal acts as without this handler.

    Outside the main thread, Python does not allow signal handlers, so the request is never set.

    Args:
        first: see ``StopRequest``.

    Raises:
        Interrupted: if a signal ends the code in the ``with`` block at once.
    """
    request = StopRequest(first=first)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: Any) -> None:
        request.name = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])
        if not _listening:
            print(_answer(request.first), file=sys.stderr, flush=True)
        if request.ends_at_once:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, note)
    _requests.append(request)
    try:
        yield request
    except KeyboardInterrupt:  # no subclass of Exception, so nothing on the way here takes it for an error
        if not request:
            raise
        raise Interrupted(request.message()) from None
    finally:
        _requests.remove(request)
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(first: str) -> str:
    if first:
        return f"Stopping: {first} first. Press Ctrl-C again to end without {first}."
    return "Stopping. Press Ctrl-C again to end at once."


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answers SIGINT and SIGTERM at once, whatever the main thread does, inside a ``with`` block.

    The first signal is also handled as without this function: by ``stop_on_signal``, or by ``KeyboardInterrupt``. If
    nothing has to be saved and the process goes on for 10 s, this ends it with ``EXIT_INTERRUPTED``. A second signal
    ends it at once. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, heard = socket.socketpair()
    told.setblocking(False)
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(heard,), daemon=True, name="signals")
    _listening.append(listener)
    listener.start()
    try:
        yield
    finally:
        _listening.clear()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        told.close()  # ends the thread, after it has answered
        listener.join(1)


def _listen(heard: socket.socket) -> None:
    """Answers the signals whose numbers arrive, one byte each."""
    with heard:
        if not _next_signal(heard, None):
            return
        print(_answer(_first()), file=sys.stderr, flush=True)
        idle_since = time.monotonic()
        while True:
            number = _next_signal(heard, 0.2)
            if number:
                _end(f"Ended without {_first() or 'waiting'}.", 128 + number)
            if number is None:
                return
            if _first():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _PATIENCE:
                _end("Stopped, and nothing is lost. Run the same command to continue.", EXIT_INTERRUPTED)


def _next_signal(heard: socket.socket, seconds: float | None) -> int | None:
    """Returns the number of the next signal; 0 after some seconds without one, None after the end of ``answered``."""
    heard.settimeout(seconds)
    try:
        while received := heard.recv(1):
            if received[0] in SIGNALS:
                return received[0]
    except TimeoutError:
        return 0
    except socket.timeout:  # in Python 3.9, no TimeoutError
        return 0
    return None


def _first() -> str:
    return _requests[-1].first if _requests else ""


def _end(text: str, status: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(status)
