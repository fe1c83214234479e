"""Counts the parameters and multiply-adds (MACs) of a built Keras model."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

import tensorflow as tf

from effnetv2_keras.architecture.profile import ParameterCount
from effnetv2_keras.models.keras_compat import tf_variables

_IN_GROUPS = re.compile("jit_compiled_convolution|_conv_xla")
"""Names of the functions in which Keras 2 and Keras 3 compute convolutions in groups."""
_NOT_COUNTED = ("Einsum", "MatMul", "Conv", "Call", "While", "If")


def count_parameters(model: tf.keras.Model) -> ParameterCount:
    """Returns the total and trainable numbers of parameters of the model."""
    total, trainable = (
        sum(math.prod(weight.shape) for weight in weights) for weights in (model.weights, model.trainable_weights)
    )
    return ParameterCount(total, trainable)


def count_macs(model: tf.keras.Model, *, image_size: int) -> int | None:
    """Returns the multiply-adds of convolutions and dense layers for one image, as ``profile.count_macs`` does.

    Args:
        model: a model for images ``[N, H, W, 3]``.
        image_size: side of the image, pixels.

    Returns:
        The number of multiply-adds; None if the model has operations whose cost is not known, such as attention.
    """
    call = tf.function(functools.partial(model, training=False), autograph=False)
    graph = call.get_concrete_function(tf.TensorSpec([1, image_size, image_size, 3])).graph
    known = {id(variable.handle): variable.shape for variable in tf_variables(model.weights)}
    shapes = {inner.name: known[id(outer)] for outer, inner in graph.captures if id(outer) in known}
    costs = [_macs(operation, shapes) for operation in graph.get_operations()]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _macs(operation: tf.Operation, variables: Mapping[str, tf.TensorShape]) -> int | None:
    """Returns the multiply-adds of one operation: the size of the kernel times the number of output positions.

    Args:
        operation: the operation.
        variables: shapes of the network's variables by the name of their handle in the graph.

    Returns:
        The number; None if the cost is not known.
    """
    in_groups = operation.type.endswith("Call") and _IN_GROUPS.search(operation.get_attr("f").name)
    if in_groups or operation.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
        read = [variables[tensor.name] for tensor in operation.inputs if tensor.name in variables]  # in Keras 3
        output, kernel = operation.outputs[0].shape, read[0] if read else operation.inputs[1].shape
        known = output.is_fully_defined() and kernel.is_fully_defined()
        return math.prod(output[:-1]) * math.prod(kernel) if known else None
    return None if any(word in operation.type for word in _NOT_COUNTED) else 0
