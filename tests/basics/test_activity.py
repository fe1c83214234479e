"""What is going on is shown whenever nothing is printed."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time

import pytest

from effnetv2_keras.basics import activity

SCRIPT = """
import sys, time
from effnetv2_keras.basics import activity
activity.ELSEWHERE = activity.FIRST_SECONDS = 0.4
with activity.shown("working"):
    print("begun", flush=True)
    with activity.doing("listing the images") as listing:
        time.sleep(1.0)
        listing.text = "listing the images 7/9"
        time.sleep(0.6)
    with activity.doing("stage 1/4"), activity.doing("saving a checkpoint"):
        time.sleep(0.7)
    print("ended", flush=True)
time.sleep(0.8)
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_silent_process_says_what_it_does_on_standard_error():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "begun\nended\n"
    lines = ended.stderr.splitlines()
    assert all(
        re.fullmatch(r"(listing the images( 7/9)?|stage 1/4: saving a checkpoint) · \d s", line) for line in lines
    )
    assert {line.rpartition(" · ")[0] for line in lines} == {
        "listing the images", "listing the images 7/9", "stage 1/4: saving a checkpoint",
    }  # fmt: skip


def test_one_line_of_a_terminal_is_written_anew_and_removed_before_other_output(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(activity, "ON_TERMINAL", 0.0)
    monkeypatch.setattr(activity, "FIRST_SECONDS", 0.0)
    with activity.shown("working"), activity.doing("compiling"):
        end = time.monotonic() + 20
        while screen.getvalue().count("\rcompiling") < 2 and time.monotonic() < end:
            time.sleep(0.05)
        print("a result")
    assert sys.stderr is screen
    before, after = screen.getvalue().split("a result")
    assert before.count("\rcompiling · 0 s\x1b[K") >= 2
    assert before.endswith("\r\x1b[K")
    assert "\n" not in before
    assert after.startswith("\n")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (125, "2 min 05 s")])
def test_the_time_of_the_innermost_activity_counts(monkeypatch, seconds, text):
    with activity.doing("outer"):
        now = time.monotonic()
        monkeypatch.setattr(activity.time, "monotonic", lambda: now)
        with activity.doing("inner"):
            monkeypatch.setattr(activity.time, "monotonic", lambda: now + seconds)
            assert activity.current() == f"outer: inner · {text}"
            assert bool(activity.current(after=60)) == (seconds > 60)
    assert activity.current() == ""
