"""Which process a trial belongs to, and whether that process still runs (no TensorFlow)."""

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
"""User attributes of a trial: its process, and when that process last said that it runs."""
SILENCE = 600.0
"""Seconds after which a silent process of another machine counts as gone."""
_DRAWING = 60.0  # seconds after which a process that has drawn a trial without claiming it counts as gone


def this_process() -> dict[str, Any]:
    """Returns the value of ``OWNER`` for this process."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "created": process.create_time()}


def owner_of(attributes: Mapping[str, Any]) -> str:
    """Names the process that a trial belongs to: its machine, and its number there."""
    owner = attributes[OWNER]
    return f"{owner['host'].partition('/')[0]}:{owner['pid']}"


def _host() -> str:
    """Names what process numbers are unique in: a machine, or a container."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def is_orphan(trial: FrozenTrial) -> bool:
    """Whether the process that drew a trial was killed before it said whose it is."""
    if trial.state != TrialState.RUNNING or OWNER in trial.user_attrs or trial.datetime_start is None:
        return False
    return (datetime.datetime.now() - trial.datetime_start).total_seconds() > _DRAWING


def is_gone(attributes: Mapping[str, Any]) -> bool:
    """Whether the process of a trial has ended: certain on the same machine, presumed of others that are silent."""
    owner = attributes[OWNER]
    if owner["host"] != _host():
        return time.time() - attributes.get(SEEN, 0.0) > SILENCE
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) > 1
    except psutil.NoSuchProcess:
        return True
