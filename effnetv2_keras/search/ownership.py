"""The process that owns a trial, and whether it still runs (no TensorFlow)."""

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
"""User attributes of a trial: the process that owns it, and the time of the last sign of life of this process."""
SILENCE = 600.0
"""Seconds without a sign of life after which a process on another machine counts as ended."""
_DRAWING = 60.0  # seconds after which a process that has drawn a trial without claiming it counts as ended


def this_process() -> dict[str, Any]:
    """Returns the value of ``OWNER`` for this process."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "created": process.create_time()}


def owner_of(attributes: Mapping[str, Any]) -> str:
    """Returns the machine and the id of the process that owns a trial, such as ``"host:1234"``."""
    owner = attributes[OWNER]
    return f"{owner['host'].partition('/')[0]}:{owner['pid']}"


def _host() -> str:
    """Returns a name of this machine or container, within which process ids are unique."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def is_orphan(trial: FrozenTrial) -> bool:
    """Returns whether the process that drew a trial was killed before it claimed the trial."""
    if trial.state != TrialState.RUNNING or OWNER in trial.user_attrs or trial.datetime_start is None:
        return False
    return (datetime.datetime.now() - trial.datetime_start).total_seconds() > _DRAWING


def is_gone(attributes: Mapping[str, Any]) -> bool:
    """Returns whether the process that owns a trial has ended.

    On the same machine, this is certain. A process on another machine counts as ended after ``SILENCE`` seconds without
    a sign of life.
    """
    owner = attributes[OWNER]
    if owner["host"] != _host():
        return time.time() - attributes.get(SEEN, 0.0) > SILENCE
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) > 1
    except psutil.NoSuchProcess:
        return True
