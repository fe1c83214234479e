"""Says that a run waits, and for what, where otherwise nothing would be seen."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging


class Watchdog:
    """Warns when something is awaited for long; a context in which its thread runs.

    Args:
        seconds: that waiting may take before the first warning, and between two.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._awaited: tuple[str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        self._thread.join()

    @contextlib.contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Watches over what happens in the context, which waits for ``what``."""
        self._awaited = (what, time.monotonic())
        try:
            yield
        finally:
            self._awaited = None

    def _watch(self) -> None:
        warned: tuple[Any, float] = (None, 0.0)
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            awaited, now = self._awaited, time.monotonic()
            since = warned[1] if awaited is warned[0] else awaited[1] if awaited else now
            if awaited and now - since >= self._seconds:
                logging.warning(
                    "The input is stalled: waiting for %s for %.0f s. Is the storage of data.data_dir slow or gone, or "
                    "the process of data.service?",
                    awaited[0],
                    now - awaited[1],
                )
                warned = (awaited, now)
