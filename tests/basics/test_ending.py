"""A process does not wait for threads that are in native code."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from effnetv2_keras.basics import ending

SCRIPT = """
import atexit, sys, time
from effnetv2_keras.basics.ending import end_process, start_thread
atexit.register(print, "at exit")
start_thread(lambda: time.sleep(60))
print("before")
end_process({code!r})
"""


@pytest.mark.parametrize(("code", "status"), [(None, 0), (75, 75), ("DataError: no images", 1)])
def test_a_process_ends_while_an_iterator_is_being_freed(code, status):
    begin = time.monotonic()
    command = [sys.executable, "-c", SCRIPT.format(code=code)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert time.monotonic() - begin < 30
    assert (ended.returncode, ended.stdout) == (status, "before\nat exit\n")
    assert ended.stderr == (f"{code}\n" if isinstance(code, str) else "")


def test_a_process_without_such_threads_ends_as_usual(monkeypatch):
    monkeypatch.setattr(ending, "_started", [])
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: ended.append("at exit"))
    ending.end_process(3)
    assert ended == []
