"""Measurement of the time that a run spends on tracing, waiting for input and steps, and of its memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import psutil
import tensorflow as tf

from effnetv2_keras.basics.activity import doing


class StepClock:
    """Splits the training time between two rows of metrics into compilation, waiting for input, and steps.

    The first step of a stage includes tracing, and its first wait includes filling buffers. Therefore both are left out
    of the share of time spent waiting, as they are left out of the images per second.

    Args:
        seconds: function that returns the training time so far, seconds, without evaluations and checkpoints.
        devices: names of the devices, from ``strategy.extended.worker_devices``.
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
            first: whether this is the first step of a stage, which is traced. If so, wait for its result inside the
                block.
        """
        if first:
            reset_peak(self._devices)
        start = self._seconds()
        with doing("compiling the training step") if first else contextlib.nullcontext():
            yield
        if first:
            self._compiling += self._seconds() - start
            self._begin()

    def note_compiling(self, seconds: float) -> None:
        """Adds tracing time that was measured elsewhere, seconds."""
        self._compiling += seconds

    def row(self) -> dict[str, float]:
        """Returns the measurements since the last call, and starts the next measurement.

        Returns:
            ``compile_seconds``, the time of first steps; ``input_wait``, the share of the time spent waiting for input,
            in [0, 1]; ``memory_mb``, MiB, see the function ``memory_mb``.
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
    """Returns the peak memory of the devices, MiB.

    Args:
        devices: names of the devices.

    Returns:
        The largest peak of a device since ``reset_peak``. For CPUs, and if no device reports its memory, the current
        memory of this process.
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
    """Returns the devices without CPUs, for which TensorFlow reports only a small part of its memory."""
    return [device for device in devices if "CPU:" not in device]
