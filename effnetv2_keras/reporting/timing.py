"""What a run spends its time and memory on: tracing, waiting for the input, and steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import psutil
import tensorflow as tf


class StepClock:
    """Splits the time between two rows of figures.

    A stage's first step is spent on tracing and its first wait on filling buffers, so both are left out of the share
    of time that is spent waiting, as they are of the images per second.

    Args:
        seconds: the training time so far; stands still during evaluations and checkpoints.
        devices: their names, as ``strategy.extended.worker_devices`` gives them.
    """

    def __init__(self, seconds: Callable[[], float], *, devices: Sequence[str] = ()) -> None:
        self._seconds, self._devices = seconds, devices
        self._compiling = 0.0
        self._begin()

    def _begin(self) -> None:
        self._began, self._waited = self._seconds(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the context as waiting for the input."""
        start = self._seconds()
        yield
        self._waited += self._seconds() - start

    @contextlib.contextmanager
    def stepping(self, *, first: bool) -> Iterator[None]:
        """Counts the context as a step.

        Args:
            first: whether it is traced, being a stage's first; then wait in the context for its result.
        """
        if first:
            reset_peak(self._devices)
        start = self._seconds()
        yield
        if first:
            self._compiling += self._seconds() - start
            self._begin()

    def note_compiling(self, seconds: float) -> None:
        """Counts time that a stage's tracing took outside the clock."""
        self._compiling += seconds

    def row(self) -> dict[str, float]:
        """Sums up the time since the last call, and begins anew.

        Returns:
            ``compile_seconds``, of first steps; ``input_wait``, the share of the time in [0, 1] that was spent waiting
            for the input; ``memory_mb``, as ``memory_mb``.
        """
        elapsed = self._seconds() - self._began
        row = {
            "compile_seconds": round(self._compiling, 3),
            "input_wait": round(self._waited / elapsed, 4) if elapsed > 0 else 0.0,
            "memory_mb": round(memory_mb(self._devices), 1),
        }
        self._compiling = 0.0
        self._begin()
        return row


def memory_mb(devices: Sequence[str] = ()) -> float:
    """Measures memory, in MiB.

    Returns:
        The most that any of the devices held since ``reset_peak``. Of CPUs, and of devices that do not tell, what this
        process holds now.
    """
    peaks = [0]
    for device in _accelerators(devices):
        with contextlib.suppress(ValueError, tf.errors.OpError):
            peaks.append(tf.config.experimental.get_memory_info(device)["peak"])
    return (max(peaks) or psutil.Process().memory_info().rss) / 2**20


def reset_peak(devices: Sequence[str]) -> None:
    """Forgets the most that the devices held so far, where they tell it."""
    for device in _accelerators(devices):
        with contextlib.suppress(ValueError, tf.errors.OpError):
            tf.config.experimental.reset_memory_stats(device)


def _accelerators(devices: Sequence[str]) -> list[str]:
    """Leaves out CPUs: of these, TensorFlow tells but a small part of what it holds."""
    return [device for device in devices if "CPU:" not in device]
