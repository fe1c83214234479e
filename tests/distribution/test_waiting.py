"""A worker says which others it waits for."""

from __future__ import annotations

import socket
import time

from effnetv2_keras.distribution.waiting import announced, describe


def test_it_is_said_which_worker_does_not_answer():
    with socket.create_server(("localhost", 0)) as open_port, socket.socket() as unused:
        unused.bind(("localhost", 0))
        here, there = (f"localhost:{one.getsockname()[1]}" for one in (open_port, unused))
        text = describe([here, here, there, "localhost:port"], 0, 15)
    assert text.startswith(f"Worker 0 of 4 has waited 15 s for the other workers: worker 1 at {here} answers but has")
    assert f"worker 2 at {there} does not answer (Connection refused); worker 3 at localhost:port does not" in text
    assert f"the list of this worker is {here},{here},{there},localhost:port." in text


def test_the_wait_is_announced_while_python_is_blocked_and_only_then(capfd):
    with announced(["localhost:1", "localhost:2"], 1, first=0.1, again=0.1):
        end, printed = time.monotonic() + 20, ""
        while printed.count("Worker 1 of 2") < 2 and time.monotonic() < end:
            time.sleep(0.02)
            printed += capfd.readouterr().err
    assert printed.count("worker 0 at localhost:1 does not answer") >= 2
    with announced(["localhost:1", "localhost:2"], 1, first=60):
        pass
    assert "Worker" not in capfd.readouterr().err
