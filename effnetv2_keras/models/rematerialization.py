"""Rematerialization (gradient checkpointing): saves memory by computing activations again in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.models import scopes
from effnetv2_keras.models.gradients import with_gradient
from effnetv2_keras.models.keras_compat import tf_variables


def rematerialize(function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor, weights: Sequence[Any]) -> tf.Tensor:
    """Returns ``function(inputs)``; for the gradient, only the inputs are kept and the function is computed again.

    The second computation draws the same random numbers and does not update BatchNorm's moving averages, so the
    results are the same as without rematerialization. ``tf.recompute_grad`` does neither, and registers a gradient that
    keeps the graph of the step in memory forever.

    Args:
        function: a part of the network, from one tensor to a new one.
        inputs: its input, of any shape and float dtype.
        weights: the weights of layers that it uses and that may be trained.

    Raises:
        ValueError: if no ``stochastic_scope`` is active.
    """
    variables = tf_variables(weights)
    draws, scope = scopes.position(), scopes.current_pass()
    for variable in variables:
        variable.read_value()  # makes the tape watch the variable

    def backward(gradient: tf.Tensor) -> list[tf.Tensor | None]:
        with tf.GradientTape() as tape, scopes.repeat_draws(draws), scopes.repeat_pass(scope):
            again = _not_before(gradient, tf.stop_gradient(inputs))
            tape.watch(again)
            outputs = function(again)
        gradients: list[tf.Tensor | None] = tape.gradient(outputs, [again, *variables], output_gradients=gradient)
        return gradients

    return with_gradient(lambda: function(inputs), [inputs, *(variable.handle for variable in variables)], backward)


def _not_before(earlier: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Returns ``tensor`` unchanged, but with a dependency on ``earlier`` that compilers cannot remove.

    Without it, a compiler would recognize the second computation as a repetition, and keep the results of the first one
    in memory instead. A control dependency is not enough, because XLA drops it. (``tf.recompute_grad`` uses the same
    method.)
    """
    flag = tf.cast(tf.reshape(earlier, [-1])[:1], tf.bool)
    nothing = tf.where(flag == flag, 0.0, float("nan"))  # noqa: PLR0124  never NaN, even if the gradient is NaN
    return tensor + tf.cast(nothing, tensor.dtype)
