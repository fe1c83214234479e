"""Ending of the process while threads are in native code that cannot be interrupted (no TensorFlow)."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import Callable

_started: list[threading.Thread] = []


def start_thread(work: Callable[[], object], *, daemon: bool = False) -> threading.Thread:
    """Starts a thread whose work may stay in native code for a minute or longer; ``end_process`` does not wait for it.

    Args:
        work: function to call.
        daemon: whether Python does not join the thread before it ends, if ``end_process`` is not called.
    """
    thread = threading.Thread(target=work, daemon=daemon)
    _started[:] = [thread]  # one is enough to know
    thread.start()
    return thread


def end_process(code: int | str | None, *, always: bool = False) -> None:
    """Ends this process at once if it has used ``start_thread``; otherwise returns, unless ``always`` is true.

    Without it, Python waits for these threads, and TensorFlow for iterators that they have not freed. What is
    registered with ``atexit`` is called first, and all output is flushed.

    Args:
        code: exit status, or a message as for ``sys.exit``; None for success.
        always: whether to end the process in any case, because a signal may have left any thread behind.
    """
    if not _started and not always:
        return
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()  # no public function calls them
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
