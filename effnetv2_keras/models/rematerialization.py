"""Trades time for memory: what a part of the network computes is computed again for the gradient, not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from effnetv2_keras.models import scopes
from effnetv2_keras.models.gradients import with_gradient
from effnetv2_keras.models.keras_compat import require_keras_2


def rematerialize(
    function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor, variables: Sequence[tf.Variable]
) -> tf.Tensor:
    """Applies a part of the network, and keeps nothing for its gradient but its input.

    The repetition draws the same random numbers and leaves BatchNorm's moving averages alone, so that no number
    changes. ``tf.recompute_grad`` knows of neither, and registers a gradient that keeps the step's graph for good.

    Args:
        function: the part, which takes one tensor and gives a new one.
        inputs: its input, of any shape and float type.
        variables: those that it uses and that may be trained.

    Raises:
        ValueError: outside any ``stochastic_scope``.
        UsageError: with Keras 3.
    """
    require_keras_2("training_scope(rematerialize=True)")
    draws, scope = scopes.position(), scopes.current_pass()
    for variable in variables:
        variable.read_value()  # which is how a tape comes to watch it

    def backward(gradient: tf.Tensor) -> list[tf.Tensor | None]:
        with tf.GradientTape() as tape, scopes.repeat_draws(draws), scopes.repeat_pass(scope):
            again = _not_before(gradient, tf.stop_gradient(inputs))
            tape.watch(again)
            outputs = function(again)
        gradients: list[tf.Tensor | None] = tape.gradient(outputs, [again, *variables], output_gradients=gradient)
        return gradients

    return with_gradient(lambda: function(inputs), [inputs, *(variable.handle for variable in variables)], backward)


def _not_before(earlier: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Gives ``tensor`` unchanged, but in a way that no compiler sees: it has to wait for ``earlier``.

    Else the repetition would be found to be one, and replaced by the first computation's results, kept in memory. A
    control dependency would not do, since XLA drops those. (``tf.recompute_grad`` goes about it in the same way.)
    """
    flag = tf.cast(tf.reshape(earlier, [-1])[:1], tf.bool)
    nothing = tf.where(flag == flag, 0.0, float("nan"))  # noqa: PLR0124  never NaN, even where the gradient is
    return tensor + tf.cast(nothing, tensor.dtype)
