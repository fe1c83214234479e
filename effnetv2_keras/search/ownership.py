"""Ownership of trials: which process runs a trial, and whether that process is still alive (no TensorFlow)."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState

OWNER, SEEN = "owner", "seen"
"""User attributes of a trial: its process, and the last time stamp of that process."""
SILENCE = 600.0
"""Seconds after which a process on another machine without a new time stamp counts as ended."""
_DRAWING = 60.0  # seconds; a process that draws a trial and does not claim it in this time counts as ended


def this_process() -> dict[str, Any]:
    """Returns the value of ``OWNER`` for this process."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "created": process.create_time()}


def owner_of(attributes: Mapping[str, Any]) -> str:
    """Returns the name of the process of a trial: host name and process number."""
    owner = attributes[OWNER]
    return f"{owner['host'].partition('/')[0]}:{owner['pid']}"


def _host() -> str:
    """Returns the name of the machine or container in which process numbers are unique."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def is_orphan(trial: FrozenTrial) -> bool:
    """Returns whether the process that drew a trial was killed before it claimed the trial."""
    if trial.state != TrialState.RUNNING or OWNER in trial.user_attrs or trial.datetime_start is None:
        return False
    return (datetime.datetime.now() - trial.datetime_start).total_seconds() > _DRAWING


def is_gone(attributes: Mapping[str, Any]) -> bool:
    """Returns whether the process of a trial has ended; on another machine, this is inferred from its silence."""
    owner = attributes[OWNER]
    if owner["host"] != _host():
        return time.time() - attributes.get(SEEN, 0.0) > SILENCE
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) > 1
    except psutil.NoSuchProcess:
        return True
