"""The layers of blocks and heads: convolutions, squeeze-and-excite, dropout, stochastic depth, SiLU."""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.models import devices, scopes
from effnetv2_keras.models.depthwise import DepthwiseConv
from effnetv2_keras.models.initializers import conv_initializer
from effnetv2_keras.models.keras_compat import IS_KERAS_3, require_channels_last
from effnetv2_keras.models.normalization import BatchNorm
from effnetv2_keras.models.package import PACKAGE


def silu(inputs: tf.Tensor) -> tf.Tensor:
    """Returns ``x * sigmoid(x)`` for any shape, also called swish; the activation of the paper.

    On an accelerator, ``tf.nn.silu`` saves memory by computing the sigmoid again for the gradient. Each call of it in a
    graph registers a gradient that TensorFlow never frees, together with the graph. It is therefore called in a
    ``tf.function`` of its own, which is traced once, and not in the graph of every train step.
    """
    if devices.on_cpu():
        return inputs * tf.sigmoid(inputs)
    outputs = _memory_saving_silu(inputs)
    outputs.set_shape(inputs.shape)
    return outputs


_memory_saving_silu = tf.function(tf.nn.silu, autograph=False, reduce_retracing=True)


def activation_function(name: str | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the activation with this name in ``tf.keras.activations``; None is the identity."""
    if name in ("silu", "swish"):
        return silu
    function: Callable[[tf.Tensor], tf.Tensor] = tf.keras.activations.get(name)
    return function


@tf.keras.utils.register_keras_serializable(PACKAGE)
class Conv(tf.keras.layers.Conv2D):
    """Conv2D that trains 1x1 kernels as matrix products on a CPU, because their gradients are faster there."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), filters]``."""
        pointwise = self.kernel_size == self.strides == (1, 1)
        if not (
            pointwise and training and devices.on_cpu()
        ):  # inference keeps the convolution, also in exported graphs
            return super().call(inputs)
        outputs = tf.tensordot(inputs, tf.reshape(self.kernel, [-1, self.filters]), 1)
        return self.activation(tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs)


class Compound(tf.keras.layers.Layer):
    """A layer whose inner layers are called in sequence.

    Keras 3 needs explicit ``build`` and ``compute_output_shape`` for nested layers.

    Raises:
        UsageError: if Keras' image format is not ``channels_last``, also when a saved model is loaded.
    """

    def __init__(self, **kwargs: Any) -> None:
        require_channels_last()
        super().__init__(**kwargs)

    def _parts(self) -> list[tf.keras.layers.Layer]:
        """Returns the inner layers with weights, in the order of the calls.

        This is not a property, because Keras would save it as an attribute.
        """
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        """Creates the variables for inputs of this shape; in Keras 2 the inner layers do so at their first call."""
        shape = input_shape
        for part in self._parts() if IS_KERAS_3 else ():
            if not self.trainable:  # set by the layer's config, which does not reach the inner layers
                part.trainable = False
            part.build(shape)
            shape = part.compute_output_shape(shape)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the output."""
        return functools.reduce(lambda shape, part: part.compute_output_shape(shape), self._parts(), input_shape)


@tf.keras.utils.register_keras_serializable(PACKAGE)
class ConvNorm(Compound):
    """Convolution without bias, BatchNorm, and an optional activation.

    Args:
        filters: channels of the output; None for a depthwise convolution, which keeps the number of channels.
        kernel_size: side of the kernel, pixels.
        stride: stride, pixels; padding is "same".
        activation: the name of an activation in ``tf.keras.activations``, or None.
        bn_momentum: weight of the old value in the moving averages, in [0, 1).
        bn_epsilon: constant added to the variance, above 0.
        freeze_bn: whether BatchNorm is not trainable at first. It then uses its moving averages in training too, and
            does not update them.
    """

    def __init__(
        self,
        filters: int | None,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        activation: str | None = None,
        bn_momentum: float = 0.9,
        bn_epsilon: float = 1e-3,
        freeze_bn: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        self.bn_momentum = bn_momentum
        self.bn_epsilon = bn_epsilon
        conv: dict[str, Any] = {
            "kernel_size": kernel_size,
            "strides": stride,
            "padding": "same",
            "use_bias": False,
            "dtype": self.dtype_policy,
            "name": "conv",
        }
        if filters is None:
            self.conv = DepthwiseConv(depthwise_initializer=conv_initializer(), **conv)
        else:
            self.conv = Conv(filters, kernel_initializer=conv_initializer(), **conv)
        self.norm = BatchNorm(
            momentum=bn_momentum, epsilon=bn_epsilon, trainable=not freeze_bn, dtype=self.dtype_policy, name="norm"
        )

    def _parts(self) -> list[tf.keras.layers.Layer]:
        return [self.conv, self.norm]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), filters]``."""
        outputs = self.norm(self.conv(inputs, training=training), training=training)
        return activation_function(self.activation)(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "activation": self.activation,
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
            "freeze_bn": not self.norm.trainable,
        }


@tf.keras.utils.register_keras_serializable(PACKAGE)
class SqueezeExcite(Compound):
    """Scales every channel by a gate in (0, 1) that is computed from the channel means of the image.

    Args:
        filters: channels of the input.
        squeezed_filters: channels of the bottleneck.
        activation: activation of the bottleneck, a name in ``tf.keras.activations``.
    """

    def __init__(self, filters: int, squeezed_filters: int, *, activation: str = "silu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.squeezed_filters = squeezed_filters
        self.activation = activation
        self.reduce = self._conv("reduce", squeezed_filters, activation_function(activation))
        self.expand = self._conv("expand", filters, tf.sigmoid)

    def _conv(self, name: str, filters: int, activation: Callable[[tf.Tensor], tf.Tensor]) -> Conv:
        return Conv(
            filters, 1, activation=activation, kernel_initializer=conv_initializer(), dtype=self.dtype_policy, name=name
        )

    def _parts(self) -> list[tf.keras.layers.Layer]:
        return [self.reduce, self.expand]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, filters]`` to the same shape."""
        means = _channel_means(inputs, training)
        return inputs * self.expand(self.reduce(means, training=training), training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "squeezed_filters": self.squeezed_filters,
            "activation": self.activation,
        }


def _channel_means(inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
    """Returns the means over height and width, ``[N, 1, 1, C]``.

    The gradient of a quotient divides ``[N, 1, 1, C]`` numbers, that of ``tf.reduce_mean`` divides ``[N, H, W, C]``.
    Sums of 16-bit numbers could overflow, and exported networks keep the one operation that all runtimes know.
    """
    if not training or inputs.dtype != tf.float32:
        return tf.reduce_mean(inputs, axis=[1, 2], keepdims=True)
    height, width = tf.unstack(tf.shape(inputs)[1:3])
    return tf.reduce_sum(inputs, axis=[1, 2], keepdims=True) / tf.cast(height * width, tf.float32)


class _RandomZeros(tf.keras.layers.Layer):
    """In training, sets random parts of the input to zero and scales the others so that the mean stays the same."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"The rate of {type(self).__name__} is {rate}, but must be a probability in [0, 1).")
        self.rate = rate

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input; Keras 3 then also knows that the output has the dtype of the computation."""
        return input_shape

    def _zero(self, inputs: tf.Tensor, rate: float | tf.Tensor, mask_shape: list[Any]) -> tf.Tensor:
        # The mask is always drawn in float32, because bfloat16 numbers would round the rate to a multiple of 1/128.
        kept = tf.cast(scopes.uniform(mask_shape) >= tf.cast(rate, tf.float32), tf.float32)
        return inputs * tf.cast(kept / tf.cast(1.0 - rate, tf.float32), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}


@tf.keras.utils.register_keras_serializable(PACKAGE)
class DropPath(_RandomZeros):
    """Stochastic depth: in training, sets whole samples to zero and scales the others by ``1 / (1 - rate)``.

    Args:
        rate: probability that a sample is set to zero, in [0, 1).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        if not training or self.rate == 0.0:
            return inputs
        return self._zero(inputs, self.rate, [_batch_size(inputs)] + [1] * (inputs.shape.rank - 1))


@tf.keras.utils.register_keras_serializable(PACKAGE)
class Dropout(_RandomZeros):
    """Dropout whose rate is not changed by a ``scopes.stochastic_scope``.

    Args:
        rate: probability that a feature is set to zero, in [0, 1).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        return self._zero(inputs, self.rate, _sizes(inputs)) if training and self.rate else inputs


@tf.keras.utils.register_keras_serializable(PACKAGE)
class HeadDropout(_RandomZeros):
    """Dropout whose rate a ``scopes.stochastic_scope`` can set, even if the layer was built with rate 0.

    Args:
        rate: probability that a feature is set to zero, in [0, 1); used if no scope sets a rate.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        rate = scopes.dropout_rate(self.rate)
        if not training or (isinstance(rate, float) and rate == 0.0):
            return inputs
        return self._zero(inputs, rate, _sizes(inputs))


def _sizes(inputs: tf.Tensor) -> list[Any]:
    """Returns the sizes of all axes: static where they are known, otherwise scalar tensors."""
    return [tf.shape(inputs)[axis] if size is None else size for axis, size in enumerate(inputs.shape)]


def _batch_size(inputs: tf.Tensor) -> Any:
    """Returns the batch size: static if it is known, because XLA needs static shapes; otherwise a scalar tensor."""
    return inputs.shape[0] or tf.shape(inputs)[0]
