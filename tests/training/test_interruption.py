"""Signals are answered at once, whatever the main thread does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from effnetv2_keras.errors import Interrupted
from effnetv2_keras.training.interruption import EXIT_INTERRUPTED, StopRequest, stop_on_signal

SCRIPT = """
import ctypes, os, signal, sys, time
from effnetv2_keras.errors import Interrupted
from effnetv2_keras.training import interruption
interruption._PATIENCE = 0.3
def native(seconds):  # a call that no signal interrupts, as most of TensorFlow's
    ctypes.CDLL(None).poll(None, 0, int(1000 * seconds))
with interruption.answered():
    signal.pthread_sigmask(signal.SIG_BLOCK, interruption.SIGNALS)  # so that another thread receives them
    print("ready", flush=True)
    with interruption.stop_on_signal() as stop:
        stop.shared = False
        {body}
"""
IDLE = "stop.saved(); native(60)"
SAVING = """
        stop.hold()
        while not stop:
            native(0.1)
        native(1)
        print("saved", flush=True)
        try:
            stop.saved("ckpt-1")
        except Interrupted as end:
            print(end, flush=True)
            os._exit(7)
"""
BUSY = "stop.hold(); native(60)"


def run(body, *signals, pause=0.5):
    """Runs a process that gets signals; returns its status, its output, and how long it lived after the last one."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(pause)
    sent = time.monotonic()
    for number in signals:
        process.send_signal(number)
        sent = time.monotonic()
        time.sleep(pause)
    output, problem = process.communicate(timeout=60)
    return process.returncode, output + problem, time.monotonic() - sent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_with_nothing_to_save_ends_even_in_native_code(number):
    status, output, seconds = run(IDLE, number)
    assert status == EXIT_INTERRUPTED, output
    assert output.splitlines() == [
        "Stopping. Press Ctrl-C again to end at once.",
        "Stopped, and nothing is lost. Run the same command to continue.",
    ]
    assert seconds < 20


def test_a_process_that_ends_at_once_answers_too():
    status, output, _ = run("stop.saved(); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)")
    assert status == 1
    assert "Stopping. Press Ctrl-C again to end at once.\n" in output
    assert "Interrupted: SIGINT: stopped, and nothing is lost. The same command resumes the run." in output


def test_what_is_not_saved_is_saved_first():
    status, output, _ = run(SAVING, signal.SIGTERM)
    assert status == 7, output
    assert sorted(output.splitlines()) == [
        "SIGTERM: saved ckpt-1. The same command resumes from this checkpoint.",
        "Stopping: saving first. Press Ctrl-C again to end without saving.",
        "saved",
    ]


def test_a_second_signal_ends_the_process_at_once():
    status, output, seconds = run(BUSY, signal.SIGINT, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert output.splitlines()[-1] == "Ended without saving."
    assert seconds < 20


@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_what_loses_nothing_and_no_except_clause_takes_it_for_an_error(capsys):
    def work():
        with stop_on_signal() as stop:
            stop.shared = False
            stop.saved()
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(20)
            except Exception:
                pytest.fail("the signal was taken for an error")

    with pytest.raises(Interrupted, match="SIGINT: stopped, and nothing is lost"):
        work()
    assert "Stopping." in capsys.readouterr().err


@pytest.mark.usefixtures("interruptible")
def test_a_wait_is_cut_short_where_something_must_be_saved_afterwards():
    with stop_on_signal() as stop:
        stop.shared = False
        stop.hold()
        with pytest.raises(KeyboardInterrupt), stop.waiting():
            signal.raise_signal(signal.SIGINT)
        assert stop.first == "saving"
        with pytest.raises(Interrupted, match="SIGINT: saved ckpt-3. The same command resumes"):
            stop.saved("ckpt-3")


def test_several_workers_end_only_together():
    stop = StopRequest("SIGTERM", shared=True)
    stop.saved("ckpt-1")
    with stop.waiting():
        assert not stop.ends_at_once
