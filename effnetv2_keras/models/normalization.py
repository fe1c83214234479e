"""BatchNorm that can use statistics over all replicas, and that supports several passes per step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_keras.distribution.replicas import sum_over_replicas
from effnetv2_keras.models import scopes
from effnetv2_keras.models.gradients import with_gradient
from effnetv2_keras.models.keras_compat import require_keras_2
from effnetv2_keras.models.package import PACKAGE


@tf.keras.utils.register_keras_serializable(PACKAGE)
class BatchNorm(tf.keras.layers.BatchNormalization):
    """Keras' BatchNormalization over the last axis; ``scopes.training_scope`` can change how it is trained.

    Weights, inference and, outside a ``training_scope``, training are those of Keras. Statistics are float32 with every
    dtype policy.
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
        if not (training and self.trainable and scopes.current_pass().sync_bn):
            return super().call(inputs, training=training, mask=mask)
        require_keras_2("training_scope(sync_bn=True)")
        with tf.name_scope("synchronized"):
            return self._normalize_over_replicas(tf.cast(inputs, self.compute_dtype))

    def _normalize_over_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        count, mean, variance = moments_over_replicas(tf.stop_gradient(inputs))
        self.add_update(lambda: self._assign_moving_average(self.moving_mean, mean, self.momentum, None))
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)  # as in the fused BatchNorm of one replica
        self.add_update(lambda: self._assign_moving_average(self.moving_variance, unbiased, self.momentum, None))
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean)
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

    # Keras updates a moving average only through these two methods.
    def _assign_moving_average(self, variable: tf.Variable, value: tf.Tensor, *args: Any) -> Any:
        return variable if scopes.current_pass().is_repeat else super()._assign_moving_average(variable, value, *args)

    def _assign_new_value(self, variable: tf.Variable, value: tf.Tensor) -> Any:
        return variable if scopes.current_pass().is_repeat else super()._assign_new_value(variable, value)


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
