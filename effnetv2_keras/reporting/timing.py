"""Measurement of the time and memory of a run: tracing, waiting for input, and steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import psutil
import tensorflow as tf


class StepClock:
    """Measures compilation and waiting for input between two rows of metrics.

    The first step of a stage is mostly tracing, and its first wait fills the buffers. Both are excluded from the share
    of time spent waiting and from the images per second.

    Args:
        seconds: returns the training time so far, which does not advance during evaluations and checkpoints.
        devices: device names, from ``strategy.extended.worker_devices``.
    """

    def __init__(self, seconds: Callable[[], float], *, devices: Sequence[str] = ()) -> None:
        self._seconds, self._devices = seconds, devices
        self._compiling = 0.0
        self._begin()

    def _begin(self) -> None:
        self._began, self._waited = self._seconds(), 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of a ``with`` block as waiting for input."""
        start = self._seconds()
        yield
        self._waited += self._seconds() - start

    @contextlib.contextmanager
    def stepping(self, *, first: bool) -> Iterator[None]:
        """Counts the time of a ``with`` block as a step.

        Args:
            first: whether this is the first step of a stage, which traces; the block must then wait for its result.
        """
        if first:
            reset_peak(self._devices)
        start = self._seconds()
        yield
        if first:
            self._compiling += self._seconds() - start
            self._begin()

    def note_compiling(self, seconds: float) -> None:
        """Adds time of tracing that was not measured by this clock, seconds."""
        self._compiling += seconds

    def row(self) -> dict[str, float]:
        """Returns the measurements since the last call, and starts the next measurement.

        Returns:
            ``compile_seconds``, the time of first steps, seconds; ``input_wait``, the share of time spent waiting for
            input, in [0, 1]; ``memory_mb``, see the function ``memory_mb``.
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
    """Returns the memory of the devices, MiB.

    Returns:
        The largest peak of the devices since ``reset_peak``. For CPUs and for devices that do not report their memory,
        the current memory of this process.
    """
    peaks = [0]
    for device in _accelerators(devices):
        with contextlib.suppress(ValueError, tf.errors.OpError):
            peaks.append(tf.config.experimental.get_memory_info(device)["peak"])
    return (max(peaks) or psutil.Process().memory_info().rss) / 2**20


def reset_peak(devices: Sequence[str]) -> None:
    """Resets the peak memory of the devices that report it."""
    for device in _accelerators(devices):
        with contextlib.suppress(ValueError, tf.errors.OpError):
            tf.config.experimental.reset_memory_stats(device)


def _accelerators(devices: Sequence[str]) -> list[str]:
    """Returns the devices without CPUs, for which TensorFlow reports only a small part of the memory."""
    return [device for device in devices if "CPU:" not in device]
