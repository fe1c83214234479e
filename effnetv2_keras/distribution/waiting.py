"""Says which workers are awaited, from a process of its own: TensorFlow blocks all Python threads while it waits."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

FIRST, AGAIN = 15.0, 30.0  # seconds until the first message, and between two messages
_CONNECT_SECONDS = 2.0


@contextlib.contextmanager
def announced(addresses: Sequence[str], index: int, *, first: float = FIRST, again: float = AGAIN) -> Iterator[None]:
    """Says on standard error which workers are awaited, while the ``with`` block takes long.

    Args:
        addresses: ``host:port`` of all workers.
        index: position of this worker in ``addresses``.
        first: time until the first message, seconds.
        again: time between two messages, seconds.
    """
    command = [sys.executable, "-I", __file__, str(first), str(again), str(index), *addresses]
    # Its standard input closes when the block or this process ends; Ctrl-C only reaches this process.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield
        finally:
            process.communicate()


def describe(addresses: Sequence[str], index: int, seconds: float) -> str:
    """Returns which workers are awaited, whether each answers at its address, and what to check."""
    others = [
        f"worker {other} at {address} {_state(address)}" for other, address in enumerate(addresses) if other != index
    ]
    return (
        f"Worker {index} of {len(addresses)} has waited {seconds:.0f} s for the other workers: {'; '.join(others)}. "
        "Start all of them, each with its own index and the same list of addresses; the list of this worker is "
        f"{','.join(addresses)}. Check the addresses, the ports and the firewalls between the machines."
    )


def _state(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return "answers but has not joined"
    except (OSError, ValueError, OverflowError) as error:
        return f"does not answer ({getattr(error, 'strerror', None) or error})"


def _main() -> None:
    first, again, index, *addresses = sys.argv[1:]
    ended = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    pause = waited = float(first)
    while not ended.wait(pause):
        print(describe(addresses, int(index), waited), file=sys.stderr, flush=True)
        pause = float(again)
        waited += pause


if __name__ == "__main__":
    _main()
