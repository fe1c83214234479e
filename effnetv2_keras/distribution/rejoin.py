"""Restart of a worker after the loss of another: a process can join a TensorFlow cluster only once."""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn

from absl import logging

from effnetv2_keras.basics.program import is_module, program
from effnetv2_keras.errors import UsageError, WorkerLost

_STARTED, _LONG_LIFE = time.monotonic(), 600.0  # seconds
_RESTARTS, _MOST_RESTARTS = "EFFNETV2_KERAS_REJOINS", 5
"""Environment variable with the number of restarts in a row, each within ten minutes, and the largest number."""


def restart(loss: WorkerLost) -> NoReturn:
    """Replaces this process by a new one with the same command, which waits for the other workers and resumes.

    Raises:
        UsageError: after five restarts in a row, each within ten minutes.
    """
    logging.warning("%s", loss)
    restarts = 1 + (0 if time.monotonic() - _STARTED > _LONG_LIFE else int(os.environ.get(_RESTARTS, "0")))
    if restarts > _MOST_RESTARTS:
        raise UsageError(
            f"This worker restarted {_MOST_RESTARTS} times in a row, each time within ten minutes. Read the other "
            "workers' messages, repair the cause, and start all of them again."
        ) from loss
    os.environ[_RESTARTS] = str(restarts)
    logging.flush()
    os.execv(sys.executable, [sys.executable, *(program()[1:] if is_module() else sys.argv[:1]), *sys.argv[1:]])
