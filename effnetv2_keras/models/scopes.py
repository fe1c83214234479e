"""Scopes for calling a network: its random numbers, its dropout rate, and how BatchNorm and blocks compute.

``stochastic_scope`` makes every random layer a function of a seed, so no generator state has to be saved.
``training_scope`` says how BatchNorm and blocks carry out a training pass. Layers read both.
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
    dropout_rate: float | None
    draws: int = 0


@contextlib.contextmanager
def stochastic_scope(seed: tf.Tensor, *, dropout_rate: float | None = None) -> Iterator[None]:
    """Makes every random layer called inside a pure function of ``seed``.

    Each draw folds its position in the order of calls into the seed, so no two layers share numbers, and the same seed
    gives the same masks in every process. Nothing is stored between steps: a resumed run repeats exactly.

    Enter it where the layers are called: inside the replica function, since every replica runs in a thread of its own.

    Args:
        seed: int32 ``[2]``, into which the caller has folded the step and the replica id.
        dropout_rate: replaces the rate of every ``HeadDropout``, in [0, 1); None leaves them theirs.

    Raises:
        ValueError: if the seed has another shape or type, or the rate is out of range.
    """
    seed = tf.convert_to_tensor(seed)
    if seed.shape != [2] or seed.dtype != tf.int32:
        raise ValueError(f"seed is {seed.dtype.name} of shape {seed.shape}; it must be int32 of shape (2,).")
    if dropout_rate is not None and not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"dropout_rate is {dropout_rate}; it must lie in [0, 1), or be None to keep the layers' own.")
    with _entered("draws", _Scope(seed, dropout_rate)):
        yield


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the sequence of a scope's draws; what it consists of is this module's business."""

    _scope: _Scope


def position() -> Position:
    """Marks where the current scope stands, so that ``repeat_draws`` can draw the same numbers once more from there.

    Raises:
        ValueError: outside any scope, where no number can be had twice.
    """
    scope = _current_draws()
    if scope is None:
        raise ValueError("No stochastic_scope is active, so no draw could be repeated; call the layers inside one.")
    return Position(dataclasses.replace(scope))


@contextlib.contextmanager
def repeat_draws(start: Position) -> Iterator[None]:
    """Enters the scope of a position again, even one that has ended; draws are those made from that position on."""
    with _entered("draws", dataclasses.replace(start._scope)):
        yield


def uniform(shape: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Draws float32 numbers in [0, 1): from the scope's seed, or outside any scope from TensorFlow's global generator.

    Args:
        shape: sizes, each an int or a scalar tensor.
    """
    scope = _current_draws()
    if scope is None:
        return tf.random.uniform(shape)
    seed = tf.random.experimental.stateless_fold_in(scope.seed, scope.draws)
    scope.draws += 1
    return tf.random.stateless_uniform(shape, seed)


def dropout_rate(default: float) -> float:
    """The rate that the current scope sets for ``HeadDropout``, or ``default`` when it sets none."""
    scope = _current_draws()
    return default if scope is None or scope.dropout_rate is None else scope.dropout_rate


def _current_draws() -> _Scope | None:
    return getattr(_local, "draws", None)


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


def current_pass() -> TrainingPass:
    """The pass whose scope this thread is in."""
    return getattr(_local, "training_pass", TrainingPass())


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
    scope = TrainingPass(sync_bn, micro_batches, rematerialize)
    with _entered("training_pass", scope):
        yield scope


@contextlib.contextmanager
def repeat_pass(scope: TrainingPass) -> Iterator[None]:
    """Enters a pass again, to repeat a part of it that is over."""
    with _entered("training_pass", dataclasses.replace(scope, rematerialize=False, is_repeat=True)):
        yield


@contextlib.contextmanager
def _entered(name: str, scope: Any) -> Iterator[None]:
    """Makes a scope this thread's while the context lasts."""
    outer = getattr(_local, name, None)
    setattr(_local, name, scope)
    try:
        yield
    finally:
        if outer is None:
            delattr(_local, name)
        else:
            setattr(_local, name, outer)
