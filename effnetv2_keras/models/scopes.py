"""Scopes for calling a network: random numbers, the dropout rate, and how BatchNorm and blocks compute.

In a ``stochastic_scope`` the output of every random layer depends only on a seed, so that no generator state has to be
saved. ``training_scope`` sets how BatchNorm and blocks compute a training pass. The layers read both scopes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

_local = threading.local()


@dataclasses.dataclass
class _Scope:
    seed: tf.Tensor
    dropout_rate: float | tf.Tensor | None
    draws: int = 0


@contextlib.contextmanager
def stochastic_scope(seed: tf.Tensor, *, dropout_rate: float | tf.Tensor | None = None) -> Iterator[None]:
    """Makes the random numbers of all layers called inside the scope depend only on ``seed``.

    The number of a draw in the order of calls is folded into the seed, so that no two layers share random numbers and
    the same seed gives the same masks in every process. Nothing is stored between steps, so a resumed run repeats
    exactly.

    Enter the scope where the layers are called, inside the replica function, because every replica has its own thread.

    Args:
        seed: int32 ``[2]``; the caller must fold the step and the replica id into it.
        dropout_rate: replaces the rate of every ``HeadDropout``, in [0, 1), a number or a float64 scalar; None to keep
            the rates of the layers. A tensor can change without a new trace; its range is not checked.

    Raises:
        ValueError: if the seed has another shape or dtype, or the rate is out of range.
    """
    seed = tf.convert_to_tensor(seed)
    if seed.shape != [2] or seed.dtype != tf.int32:
        raise ValueError(f"seed is {seed.dtype.name} of shape {seed.shape}, but must be int32 of shape (2,).")
    if isinstance(dropout_rate, float) and not 0.0 <= dropout_rate < 1.0:
        raise ValueError(
            f"dropout_rate is {dropout_rate}, but must be in [0, 1), or None to keep the rates of the layers."
        )
    with _entered("draws", _Scope(seed, dropout_rate)):
        yield


@dataclasses.dataclass(frozen=True)
class Position:
    """A position in the sequence of a scope's draws, for ``repeat_draws``. Its fields are private."""

    _scope: _Scope


def position() -> Position:
    """Returns the current position in the draws, so that ``repeat_draws`` can draw the same numbers again from there.

    Raises:
        ValueError: if no ``stochastic_scope`` is active, because draws cannot be repeated without one.
    """
    scope = _current_draws()
    if scope is None:
        raise ValueError("No stochastic_scope is active, so draws cannot be repeated. Call the layers inside one.")
    return Position(dataclasses.replace(scope))


@contextlib.contextmanager
def repeat_draws(start: Position) -> Iterator[None]:
    """Enters the scope of a position again, even if it has ended, and repeats the draws from that position on."""
    with _entered("draws", dataclasses.replace(start._scope)):
        yield


def uniform(shape: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Returns random float32 numbers in [0, 1), drawn from the seed of the current ``stochastic_scope``.

    Without a scope they are drawn from TensorFlow's global generator.

    Args:
        shape: shape of the result; each size is an int or a scalar tensor.
    """
    scope = _current_draws()
    if scope is None:
        return tf.random.uniform(shape)
    seed = tf.random.experimental.stateless_fold_in(scope.seed, scope.draws)
    scope.draws += 1
    return tf.random.stateless_uniform(shape, seed)


def dropout_rate(default: float) -> float | tf.Tensor:
    """Returns the dropout rate that the current scope sets for ``HeadDropout``, or ``default`` if it sets none."""
    scope = _current_draws()
    return default if scope is None or scope.dropout_rate is None else scope.dropout_rate


def _current_draws() -> _Scope | None:
    return getattr(_local, "draws", None)


@dataclasses.dataclass(frozen=True)
class TrainingPass:
    """Settings of one forward and backward pass; the defaults apply outside any ``training_scope``.

    Attributes:
        sync_bn: whether BatchNorm computes its statistics over the batches of all replicas.
        micro_batches: number of passes per step; each pass updates BatchNorm's moving averages.
        rematerialize: whether blocks keep only their inputs and compute the rest again for the gradient.
        is_repeat: whether this is that second computation, which does not update the moving averages.
    """

    sync_bn: bool = False
    micro_batches: int = 1
    rematerialize: bool = False
    is_repeat: bool = False


def current_pass() -> TrainingPass:
    """Returns the settings of this thread's current ``training_scope``."""
    return getattr(_local, "training_pass", TrainingPass())


@contextlib.contextmanager
def training_scope(
    *, sync_bn: bool = False, micro_batches: int = 1, rematerialize: bool = False
) -> Iterator[TrainingPass]:
    """Sets how layers that are called inside the scope with ``training=True`` compute a training pass.

    Enter the scope where the layers are called, inside the replica function, because every replica has its own thread.
    An inner scope replaces the outer one.

    Args:
        sync_bn: whether BatchNorm computes mean and variance over the global batch, in float32, instead of over each
            replica's batch. All replicas must then call the same layers in the same order.
        micro_batches: number of passes per step, at least 1. Each pass updates BatchNorm's moving averages with
            momentum ``momentum ** (1 / micro_batches)``, so that they change as fast as with one pass per step.
        rematerialize: whether blocks are computed again in the backward pass instead of being kept in memory. Their
            random draws are repeated, which also needs a ``stochastic_scope``.

    Raises:
        ValueError: if ``micro_batches`` is less than 1.
    """
    if micro_batches < 1:
        raise ValueError(f"micro_batches is {micro_batches}, but must be at least 1: the number of passes per step.")
    scope = TrainingPass(sync_bn, micro_batches, rematerialize)
    with _entered("training_pass", scope):
        yield scope


@contextlib.contextmanager
def repeat_pass(scope: TrainingPass) -> Iterator[None]:
    """Enters the scope of an earlier pass again, to repeat a part of it."""
    with _entered("training_pass", dataclasses.replace(scope, rematerialize=False, is_repeat=True)):
        yield


@contextlib.contextmanager
def _entered(name: str, scope: Any) -> Iterator[None]:
    """Makes a scope the current one of this thread until the context ends."""
    outer = getattr(_local, name, None)
    setattr(_local, name, scope)
    try:
        yield
    finally:
        if outer is None:
            delattr(_local, name)
        else:
            setattr(_local, name, outer)
