"""The depthwise convolution of the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from effnetv2_keras.models import devices
from effnetv2_keras.models.gradients import with_gradient
from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.models.package import PACKAGE


@tf.keras.utils.register_keras_serializable(PACKAGE)
class DepthwiseConv(tf.keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D with "same" padding that also trains fast on images smaller than the kernel, on a CPU.

    For the gradient of a kernel, oneDNN takes several times as long where the kernel is larger than the image, as in
    the last blocks of networks that train on small images. Zeros at the lower and right ends of both the image and the
    gradient leave the result the same.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), C]``."""
        convolve = super().call
        if not (training and devices.on_cpu()):
            return convolve(inputs)
        (variable,) = tf_variables(self.weights)
        variable.read_value()  # makes the tape watch the variable

        def backward(gradient: tf.Tensor) -> list[tf.Tensor]:
            strides = [1, *self.strides, 1]
            of_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=tf.cast(variable, inputs.dtype),
                out_backprop=gradient,
                strides=strides,
                padding="SAME",
            )
            return [of_inputs, tf.cast(_kernel_gradient(inputs, gradient, variable.shape, strides), variable.dtype)]

        return with_gradient(lambda: convolve(inputs), [inputs, variable.handle], backward)


def _kernel_gradient(
    inputs: tf.Tensor, gradient: tf.Tensor, kernel_shape: tf.TensorShape, strides: Sequence[int]
) -> tf.Tensor:
    side, stride = kernel_shape[0], strides[1]

    def of(inputs: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=inputs, filter_sizes=kernel_shape, out_backprop=gradient, strides=[*strides], padding="SAME"
        )

    def of_larger() -> tf.Tensor:
        def enlarged(images: tf.Tensor, pixels: int) -> tf.Tensor:
            return tf.pad(images, [[0, 0], [0, pixels], [0, pixels], [0, 0]])

        return of(enlarged(inputs, stride * side), enlarged(gradient, side))

    height, width = inputs.shape[1:3]
    if height is None or width is None:
        is_small = tf.reduce_min(tf.shape(inputs)[1:3]) < side
        return tf.cond(is_small, of_larger, lambda: of(inputs, gradient))
    return of_larger() if min(height, width) < side else of(inputs, gradient)
