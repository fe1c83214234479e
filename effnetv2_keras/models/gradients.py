"""Custom gradients for gradient tapes, without TensorFlow's global gradient registry.

``tf.custom_gradient`` registers a gradient for each call in a graph and never removes it, and the registered gradient
keeps the graph in memory. A run that traces a train step for every stage would never free a graph. ``with_gradient``
records the gradient on the tape only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import tensorflow as tf

# This module is private, but tf.custom_gradient itself calls it, and the versions of TensorFlow are pinned.
from tensorflow.python.eager import record

Backward = Callable[[tf.Tensor], Sequence[Optional[tf.Tensor]]]


def with_gradient(forward: Callable[[], tf.Tensor], inputs: Sequence[tf.Tensor], backward: Backward) -> tf.Tensor:
    """Returns the tensor that ``forward`` computes; gradient tapes use ``backward`` as its gradient.

    Only tapes use ``backward``. ``tf.gradients``, and a tape outside the ``tf.function`` in which this is called,
    differentiate the operations of ``forward``.

    Args:
        forward: computes a new tensor; tapes do not record its operations.
        inputs: the tensors for which there is a gradient; for variables, their handles.
        backward: maps the gradient of the tensor to the gradients of ``inputs``, in order; None for no gradient.
    """
    with record.stop_recording():
        output = forward()
    record.record_operation("WithGradient", [output], [*inputs], lambda gradient: [*backward(gradient)])
    return output
