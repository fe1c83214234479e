"""BatchNorm that can use statistics over all replicas, and that supports several passes per step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_keras.distribution.replicas import sum_over_replicas
from effnetv2_keras.models import scopes
from effnetv2_keras.models.gradients import with_gradient
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.package import PACKAGE

_SMALLEST_EPSILON = 1.001e-5
"""The smallest epsilon of the fused kernel on a GPU; Keras 2 uses at least this one."""


@tf.keras.utils.register_keras_serializable(PACKAGE)
class BatchNorm(tf.keras.layers.BatchNormalization):
    """Keras' BatchNormalization over the last axis; ``scopes.training_scope`` can change how it is trained.

    Weights, inference and, outside a ``training_scope``, training are those of Keras 2. Statistics are float32 with
    every dtype policy. (Keras 3 also trains with the variance of the batch, but averages it without the factor
    ``n / (n - 1)`` for ``n`` values in a channel, and needs more time, because it does not call the fused kernel.)
    """

    @property
    def momentum(self) -> float:
        """Weight of the old value in the moving averages for one pass, in [0, 1)."""
        return float(self._momentum ** (1 / scopes.current_pass().micro_batches))

    @momentum.setter
    def momentum(self, momentum: float) -> None:
        self._momentum = momentum

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Maps ``[N, ..., channels]`` to the same shape."""
        if training and self.trainable and scopes.current_pass().sync_bn:
            with tf.name_scope("synchronized"):
                return self._normalize_over_replicas(tf.cast(inputs, self.compute_dtype))
        if training and self.trainable and IS_KERAS_3 and mask is None:
            return self._normalize(tf.cast(inputs, self.compute_dtype))
        return super().call(inputs, training=training, mask=mask)

    def _normalize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Trains as Keras 2 does: images with the fused kernel, and inputs without height and width without it."""
        gamma, beta = self._scale_and_offset()
        momentum = self.momentum
        if len(inputs.shape) != 4:
            mean, variance = tf.nn.moments(tf.cast(inputs, tf.float32), [*range(len(inputs.shape) - 1)])
            self._assign_moving_average(self.moving_mean, mean, momentum, None)
            self._assign_moving_average(self.moving_variance, variance, momentum, None)
            outputs = tf.nn.batch_normalization(
                tf.cast(inputs, tf.float32), mean, variance, beta, gamma, variance_epsilon=self.epsilon
            )
            return tf.cast(outputs, inputs.dtype)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            epsilon=max(self.epsilon, _SMALLEST_EPSILON),
            exponential_avg_factor=1.0 - momentum,
            is_training=True,
        )
        self._assign_new_value(self.moving_mean, mean)
        self._assign_new_value(self.moving_variance, variance)
        return outputs

    def _scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns gamma and beta, or ones and zeros; float32, ``[channels]``."""
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(self.moving_mean.shape)
        return gamma, tf.convert_to_tensor(self.beta) if self.center else tf.zeros(self.moving_mean.shape)

    def _normalize_over_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        count, mean, variance = moments_over_replicas(tf.stop_gradient(inputs))
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)  # as in the fused BatchNorm of one replica
        self._assign_moving_average(self.moving_mean, mean, self.momentum, None)
        self._assign_moving_average(self.moving_variance, unbiased, self.momentum, None)
        gamma, beta = self._scale_and_offset()
        inverse = tf.math.rsqrt(variance + self.epsilon)
        axes = [*range(inputs.shape.rank - 1)]

        def standardized() -> tf.Tensor:
            return (tf.cast(inputs, tf.float32) - mean) * inverse

        def backward(gradient: tf.Tensor) -> list[tf.Tensor]:
            """Returns the gradients; the loss of a replica depends, through the statistics, on all replicas' images."""
            outer, x = tf.cast(gradient, tf.float32), standardized()
            own = tf.stack([tf.reduce_sum(outer, axes), tf.reduce_sum(outer * x, axes)])
            beta_mean, gamma_mean = tf.unstack(sum_over_replicas([own])[0] / count)
            inner = gamma * inverse * (outer - beta_mean - x * gamma_mean)
            return [tf.cast(inner, inputs.dtype), own[1], own[0]]

        return with_gradient(
            lambda: tf.cast(standardized() * gamma + beta, inputs.dtype), [inputs, gamma, beta], backward
        )

    # Keras 2 updates a moving average only through these two methods.
    def _assign_moving_average(self, variable: tf.Variable, value: tf.Tensor, momentum: float, size: Any) -> Any:
        if scopes.current_pass().is_repeat:
            return variable
        if IS_KERAS_3:
            return variable.assign(variable - (variable - value) * (1.0 - momentum))
        return super()._assign_moving_average(variable, value, momentum, size)

    def _assign_new_value(self, variable: tf.Variable, value: tf.Tensor) -> Any:
        if scopes.current_pass().is_repeat:
            return variable
        return variable.assign(value) if IS_KERAS_3 else super()._assign_new_value(variable, value)


def moments_over_replicas(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns count, mean and variance of the values in each channel, over the inputs of all replicas.

    The variance is computed from the deviations from the mean. The difference of the mean square and the squared mean
    would lose all digits if the mean is large.

    Args:
        inputs: ``[N, ..., channels]`` of any float dtype; ``N`` may differ between replicas.

    Returns:
        Float32 count (scalar), mean and biased variance (each ``[channels]``).
    """
    values, axes = tf.cast(inputs, tf.float32), [*range(inputs.shape.rank - 1)]
    own_count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
    (sums,) = sum_over_replicas([tf.concat([[own_count], tf.reduce_sum(values, axes)], 0)])
    count, mean = sums[0], sums[1:] / sums[0]
    return count, mean, sum_over_replicas([tf.reduce_sum(tf.square(values - mean), axes)])[0] / count
