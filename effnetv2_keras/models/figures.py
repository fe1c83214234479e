"""Parameters and multiply-adds of a Keras model, counted from the model itself."""

from __future__ import annotations

import functools
import math

import tensorflow as tf

from effnetv2_keras.architecture.profile import ParameterCount

_NOT_COUNTED = ("Einsum", "MatMul", "Conv", "Call", "While", "If")


def count_parameters(model: tf.keras.Model) -> ParameterCount:
    """Counts the numbers in the model's variables."""
    total, trainable = (
        sum(math.prod(weight.shape) for weight in weights) for weights in (model.weights, model.trainable_weights)
    )
    return ParameterCount(total, trainable)


def count_macs(model: tf.keras.Model, *, image_size: int) -> int | None:
    """Counts multiply-adds of convolutions and dense layers for one image, as ``profile.count_macs`` does.

    Args:
        model: takes images ``[N, H, W, 3]``.
        image_size: side of the image, pixels.

    Returns:
        The count; None where the model has operations with another cost, such as attention.
    """
    call = tf.function(functools.partial(model, training=False), autograph=False)
    graph = call.get_concrete_function(tf.TensorSpec([1, image_size, image_size, 3])).graph
    costs = [_macs(operation) for operation in graph.get_operations()]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _macs(operation: tf.Operation) -> int | None:
    """Of one operation: every number of the kernel is used once at every position of the output."""
    in_groups = operation.type.endswith("Call") and "jit_compiled_convolution" in operation.get_attr("f").name
    if in_groups or operation.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
        output, kernel = operation.outputs[0].shape, operation.inputs[1].shape
        known = output.is_fully_defined() and kernel.is_fully_defined()
        return math.prod(output[:-1]) * math.prod(kernel) if known else None
    return None if any(word in operation.type for word in _NOT_COUNTED) else 0
