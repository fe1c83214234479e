"""Loss scaling for float16, with the rule of ``tf.keras.mixed_precision.LossScaleOptimizer`` of Keras 2."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_INITIAL_SCALE = 2.0**15
_GROWTH_STEPS = 2000
_FACTOR = 2.0


class LossScale(tf.Module):
    """A factor of the loss that keeps small gradients from being 0 in float16.

    The scale begins at 2**15. A step whose gradients are not all finite halves it, to no less than 1, and must not
    change the weights. After 2000 steps in a row with finite gradients, the scale doubles.

    Make it in the scope of the strategy.

    Attributes:
        current_loss_scale: the scale, a float32 scalar.
        good_steps: number of steps with finite gradients since the scale changed, an int64 scalar.
    """

    def __init__(self) -> None:
        super().__init__(name="loss_scale")
        with tf.init_scope():
            self.current_loss_scale = tf.Variable(_INITIAL_SCALE, trainable=False, name="current_loss_scale")
            self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns a loss multiplied by the scale."""
        return loss * tf.cast(self.current_loss_scale, loss.dtype)

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the gradients of a scaled loss divided by the scale."""
        factor = 1.0 / tf.convert_to_tensor(self.current_loss_scale)
        return [gradient * tf.cast(factor, gradient.dtype) for gradient in gradients]

    def update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Changes the scale after a step, and returns whether the gradients are all finite, a bool scalar.

        Args:
            gradients: unscaled gradients, the same on each replica; values of all replicas if this is called in a
                cross-replica context.
        """
        strategy = tf.distribute.get_strategy()
        own = [strategy.experimental_local_results(gradient)[0] for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in own])
        scale, good_steps = tf.convert_to_tensor(self.current_loss_scale), self.good_steps + 1
        grows = good_steps >= _GROWTH_STEPS
        larger = tf.where(grows & tf.math.is_finite(scale * _FACTOR), scale * _FACTOR, scale)
        self.current_loss_scale.assign(tf.where(finite, larger, tf.maximum(scale / _FACTOR, 1.0)))
        self.good_steps.assign(tf.where(finite & ~grows, good_steps, tf.zeros_like(good_steps)))
        return finite
