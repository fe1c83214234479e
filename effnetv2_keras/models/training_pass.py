"""Hands from the train step to the layers how its pass through the network is carried out; the network has no say."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

_local = threading.local()


@dataclasses.dataclass(frozen=True)
class TrainingPass:
    """One forward and backward pass; the defaults are what holds outside any scope.

    Attributes:
        sync_bn: whether BatchNorm takes its statistics over the batches of all replicas together.
        micro_batches: passes that make one step; BatchNorm's moving averages move in each.
        rematerialize: whether blocks keep only their inputs, and compute the rest again for the gradient.
        is_repeat: whether this is that second computation, which leaves the moving averages alone.
    """

    sync_bn: bool = False
    micro_batches: int = 1
    rematerialize: bool = False
    is_repeat: bool = False


def current() -> TrainingPass:
    """The pass whose scope this thread is in."""
    scope: TrainingPass = getattr(_local, "scope", TrainingPass())
    return scope


@contextlib.contextmanager
def training_scope(
    *, sync_bn: bool = False, micro_batches: int = 1, rematerialize: bool = False
) -> Iterator[TrainingPass]:
    """Sets how the layers called inside with ``training=True`` carry out their pass.

    Enter it where the layers are called: inside the replica function, since every replica runs in a thread of its own.
    An inner scope replaces the outer one.

    Args:
        sync_bn: BatchNorm takes mean and variance over the whole batch of all replicas, in float32, rather than over
            each replica's own; the replicas must then call the same layers in the same order.
        micro_batches: how many passes make one step, at least 1. BatchNorm's moving averages move in each, with
            momentum ``momentum ** (1 / micro_batches)``, and so forget as fast as with one pass a step.
        rematerialize: blocks are computed a second time in the backward pass rather than kept in memory. That repeats
            their random draws, which takes a ``stochastic_scope`` too.

    Raises:
        ValueError: if ``micro_batches`` is less than 1.
    """
    if micro_batches < 1:
        raise ValueError(f"micro_batches is {micro_batches}; it must be at least 1, the number of passes in a step.")
    with _entered(TrainingPass(sync_bn, micro_batches, rematerialize)) as scope:
        yield scope


@contextlib.contextmanager
def repeat(scope: TrainingPass) -> Iterator[None]:
    """Enters a pass again, to repeat a part of it that is over."""
    with _entered(dataclasses.replace(scope, rematerialize=False, is_repeat=True)):
        yield


@contextlib.contextmanager
def _entered(scope: TrainingPass) -> Iterator[TrainingPass]:
    outer = current()
    _local.scope = scope
    try:
        yield scope
    finally:
        _local.scope = outer
