"""Frees iterators of tf.data without waiting for it."""

from __future__ import annotations

import threading
from typing import Any


def free_in_background(box: list[Any]) -> None:
    """Empties a list that holds the last reference to an iterator, in a thread.

    tf.data's tuning thread sleeps for as long as the iterator has been in use, a minute at most, and freeing the
    iterator waits for it: it is woken before the flag is set that it looks at, so that often it goes on sleeping.
    """
    threading.Thread(target=box.clear).start()  # no daemon: Python cannot end one in the middle of this
