"""Hands randomness and the stage's dropout rate from the training loop to the layers, without saved generator state."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence

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
    with _entered(_Scope(seed, dropout_rate)):
        yield


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the sequence of a scope's draws; what it consists of is this module's business."""

    _scope: _Scope


def position() -> Position:
    """Marks where the current scope stands, so that ``repeat`` can draw the same numbers once more from there.

    Raises:
        ValueError: outside any scope, where no number can be had twice.
    """
    scope = _current()
    if scope is None:
        raise ValueError("No stochastic_scope is active, so no draw could be repeated; call the layers inside one.")
    return Position(dataclasses.replace(scope))


@contextlib.contextmanager
def repeat(start: Position) -> Iterator[None]:
    """Enters the scope of a position again, even one that has ended; draws are those made from that position on."""
    with _entered(dataclasses.replace(start._scope)):
        yield


def uniform(shape: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Draws float32 numbers in [0, 1): from the scope's seed, or outside any scope from TensorFlow's global generator.

    Args:
        shape: sizes, each an int or a scalar tensor.
    """
    scope = _current()
    if scope is None:
        return tf.random.uniform(shape)
    seed = tf.random.experimental.stateless_fold_in(scope.seed, scope.draws)
    scope.draws += 1
    return tf.random.stateless_uniform(shape, seed)


def dropout_rate(default: float) -> float:
    """The rate that the current scope sets for ``HeadDropout``, or ``default`` when it sets none."""
    scope = _current()
    return default if scope is None or scope.dropout_rate is None else scope.dropout_rate


def _current() -> _Scope | None:
    return getattr(_local, "scope", None)


@contextlib.contextmanager
def _entered(scope: _Scope) -> Iterator[None]:
    outer = _current()
    _local.scope = scope
    try:
        yield
    finally:
        _local.scope = outer
