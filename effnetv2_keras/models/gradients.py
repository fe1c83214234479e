"""Gradients of one's own for gradient tapes, without a trace in TensorFlow's registry.

``tf.custom_gradient`` registers the gradient of each call made in a graph, for good, and keeps that graph with it: a
run that traces a step for every stage would never free one. What a tape needs is only to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import tensorflow as tf

# Private, but the very thing that tf.custom_gradient calls; TensorFlow's versions are pinned.
from tensorflow.python.eager import record

Backward = Callable[[tf.Tensor], Sequence[Optional[tf.Tensor]]]


def with_gradient(forward: Callable[[], tf.Tensor], inputs: Sequence[tf.Tensor], backward: Backward) -> tf.Tensor:
    """Computes a tensor that gradient tapes differentiate in the way given, whatever it is computed by.

    Only tapes know of it: ``tf.gradients``, or a tape outside the ``tf.function`` that this is called in, see the
    operations themselves.

    Args:
        forward: computes the tensor, a new one; no tape sees how.
        inputs: the tensors, handles of variables among them, that it has a gradient for.
        backward: turns the gradient of the tensor into those of ``inputs``, in order; None is no gradient.
    """
    with record.stop_recording():
        output = forward()
    record.record_operation("WithGradient", [output], [*inputs], lambda gradient: [*backward(gradient)])
    return output
