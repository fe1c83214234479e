"""Signals: Ctrl-C and SIGTERM end a run with a checkpoint after the current step."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class StopRequest:
    """A request to end the run; it is false until a signal arrives.

    Attributes:
        name: name of the signal, such as ``"SIGTERM"``; empty before it arrives.
    """

    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def wait(self) -> None:
        """Sleeps until a signal arrives."""
        while not self:
            time.sleep(0.2)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Yields a request, which the first SIGINT or SIGTERM sets; a second signal acts as without this handler.

    Outside the main thread, Python does not allow signal handlers, so the request is never set.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        request.name = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
