"""The layers that blocks and heads are made of."""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.models import scopes
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.normalization import BatchNorm
from effnetv2_keras.models.package import PACKAGE


def conv_initializer() -> tf.keras.initializers.Initializer:
    """Untruncated normal of standard deviation ``sqrt(2 / fan_out)`` (reference code).

    For a depthwise kernel ``(k, k, channels, 1)`` that fan-out is ``k * k``.
    """
    return tf.keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def dense_initializer() -> tf.keras.initializers.Initializer:
    """Uniform in ``+-1 / sqrt(classes)`` (reference code)."""
    return tf.keras.initializers.VarianceScaling(1 / 3, mode="fan_out", distribution="uniform")


def _on_cpu() -> bool:
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def silu(inputs: tf.Tensor) -> tf.Tensor:
    """``x * sigmoid(x)`` of any shape, also called swish; the paper's activation.

    An accelerator computes the sigmoid a second time in the gradient rather than keep it in memory, as ``tf.nn.silu``
    does. That function must not be called in every train step's graph, though: each of its calls registers a gradient
    with TensorFlow for good, and with it the whole graph. So it has a graph of its own here, traced once.
    """
    if _on_cpu():
        return inputs * tf.sigmoid(inputs)
    outputs = _memory_saving_silu(inputs)
    outputs.set_shape(inputs.shape)
    return outputs


_memory_saving_silu = tf.function(tf.nn.silu, autograph=False, reduce_retracing=True)


def activation_function(name: str | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Finds an activation by the name under which ``tf.keras.activations`` knows it; None is the identity."""
    if name in ("silu", "swish"):
        return silu
    function: Callable[[tf.Tensor], tf.Tensor] = tf.keras.activations.get(name)
    return function


@tf.keras.utils.register_keras_serializable(PACKAGE)
class Conv(tf.keras.layers.Conv2D):
    """Conv2D that trains 1x1 kernels as matrix products on a CPU, where their gradients are faster."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), filters]``."""
        pointwise = self.kernel_size == self.strides == (1, 1)
        if not (pointwise and training and _on_cpu()):  # an exported graph keeps the convolution
            return super().call(inputs)
        outputs = tf.tensordot(inputs, tf.reshape(self.kernel, [-1, self.filters]), 1)
        return self.activation(tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs)


class Compound(tf.keras.layers.Layer):
    """A layer of layers that are called one after the other; Keras 3 wants to be told more of such."""

    def _parts(self) -> list[tf.keras.layers.Layer]:
        """The layers with weights, in the order of the calls; no property, which Keras would save as an attribute."""
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        """Makes the variables for inputs of a shape; with Keras 2 the parts make theirs when they are first called."""
        shape = input_shape
        for part in self._parts() if IS_KERAS_3 else ():
            if not self.trainable:  # as the layer's config may say, of which the parts do not know
                part.trainable = False
            part.build(shape)
            shape = part.compute_output_shape(shape)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Gives the shape of what ``call`` returns."""
        return functools.reduce(lambda shape, part: part.compute_output_shape(shape), self._parts(), input_shape)


@tf.keras.utils.register_keras_serializable(PACKAGE)
class ConvNorm(Compound):
    """Convolution without bias, BatchNorm, and an activation if one is given.

    Args:
        filters: channels given; None for a depthwise convolution, which gives as many as it takes.
        kernel_size: side of the kernel, pixels.
        stride: stride, pixels; padding is "same".
        activation: a name that ``tf.keras.activations`` knows, or None.
        bn_momentum: weight of the old value in the moving averages, in [0, 1).
        bn_epsilon: added to the variance.
        freeze_bn: whether BatchNorm begins untrainable: its averages then stay, and serve in training too.
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
            self.conv = tf.keras.layers.DepthwiseConv2D(depthwise_initializer=conv_initializer(), **conv)
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
    """Scales every channel by a gate in (0, 1) computed from the image's channel means.

    Args:
        filters: channels of the input.
        squeezed_filters: channels of the bottleneck.
        activation: the bottleneck's, a name that ``tf.keras.activations`` knows.
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
        means = tf.reduce_mean(inputs, axis=[1, 2], keepdims=True)
        return inputs * self.expand(self.reduce(means, training=training), training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "squeezed_filters": self.squeezed_filters,
            "activation": self.activation,
        }


class _RandomZeros(tf.keras.layers.Layer):
    """Zeroes parts of its input at random in training and scales the rest so that the mean stays."""

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{type(self).__name__}'s rate is {rate}; it is a probability and must lie in [0, 1).")
        self.rate = rate

    def _zero(self, inputs: tf.Tensor, rate: float, mask_shape: list[Any]) -> tf.Tensor:
        # Whatever the inputs' type, the mask is drawn in float32: bfloat16 numbers would round the rate to 1/128.
        kept = tf.cast(scopes.uniform(mask_shape) >= rate, tf.float32)
        return inputs * tf.cast(kept / (1.0 - rate), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}


@tf.keras.utils.register_keras_serializable(PACKAGE)
class DropPath(_RandomZeros):
    """Stochastic depth: in training zeroes whole samples and scales the others by ``1 / (1 - rate)``.

    Args:
        rate: probability that a sample is zeroed, in [0, 1).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        if not training or self.rate == 0.0:
            return inputs
        return self._zero(inputs, self.rate, [_batch_size(inputs)] + [1] * (inputs.shape.rank - 1))


@tf.keras.utils.register_keras_serializable(PACKAGE)
class Dropout(_RandomZeros):
    """Dropout at a rate of its own, whatever a ``scopes.stochastic_scope`` sets.

    Args:
        rate: probability that a feature is zeroed, in [0, 1).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        return self._zero(inputs, self.rate, _sizes(inputs)) if training and self.rate else inputs


@tf.keras.utils.register_keras_serializable(PACKAGE)
class HeadDropout(_RandomZeros):
    """Dropout whose rate a ``scopes.stochastic_scope`` may set, even where the layer was built with rate 0.

    Args:
        rate: probability that a feature is zeroed, in [0, 1), where no scope sets one.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, ...]`` to the same shape."""
        rate = scopes.dropout_rate(self.rate)
        if not training or rate == 0.0:
            return inputs
        return self._zero(inputs, rate, _sizes(inputs))


def _sizes(inputs: tf.Tensor) -> list[Any]:
    """The static sizes where they are known."""
    return [tf.shape(inputs)[axis] if size is None else size for axis, size in enumerate(inputs.shape)]


def _batch_size(inputs: tf.Tensor) -> Any:
    """The static size where it is known, as XLA wants it."""
    return inputs.shape[0] or tf.shape(inputs)[0]
