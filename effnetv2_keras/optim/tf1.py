"""The optimizers of TensorFlow 1: each updates a variable with TensorFlow 1's kernel."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.optim.base import LearningRate, Optimizer, Progress


class RMSpropTF1(Optimizer):
    """RMSProp as in TensorFlow 1 (``tf.compat.v1.train.RMSPropOptimizer``).

    For a gradient ``g``::

        mean_square = rho * mean_square + (1 - rho) * g**2
        momentum = momentum_rate * momentum + learning_rate * g / sqrt(mean_square + epsilon)
        weight = weight - momentum

    In contrast to ``tf.keras.optimizers.RMSprop``, ``mean_square`` starts at one instead of zero, which makes the first
    updates much smaller, and the defaults are those of the reference code.

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        rho: decay of the mean square, in [0, 1).
        momentum: decay of the momentum, in [0, 1).
        epsilon: added to the mean square, inside the square root, above 0.
    """

    SLOTS = ("mean_square", "momentum")
    SLOT_BY_SLOT = True

    def __init__(
        self, learning_rate: LearningRate, rho: float = 0.9, momentum: float = 0.9, epsilon: float = 1e-3
    ) -> None:
        super().__init__(learning_rate, name="RMSpropTF1")
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon

    def initial_slot(self, name: str, variable: tf.Variable) -> tf.Tensor:
        """Returns ones for the mean square, zeros for the momentum."""
        return (
            tf.ones(variable.shape, variable.dtype) if name == "mean_square" else super().initial_slot(name, variable)
        )

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable and its slots; see ``Optimizer.update``."""
        mean_square, momentum = slots
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=mean_square.handle,
            mom=momentum.handle,
            lr=progress.rate(dtype),
            rho=progress.constant(self.rho, dtype),
            momentum=progress.constant(self.momentum, dtype),
            epsilon=progress.constant(self.epsilon, dtype),
            grad=gradient,
        )


class MomentumTF1(Optimizer):
    """SGD with momentum as in TensorFlow 1 (``tf.compat.v1.train.MomentumOptimizer``) and PyTorch.

    For a gradient ``g``::

        accumulator = momentum * accumulator + g
        weight = weight - learning_rate * accumulator

    ``tf.keras.optimizers.SGD`` multiplies by the learning rate inside the accumulator, so a new rate affects future
    gradients only. With a constant learning rate the two are the same.

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        momentum: decay of the accumulator, in [0, 1).
    """

    SLOTS = ("accumulator",)

    def __init__(self, learning_rate: LearningRate, momentum: float = 0.9) -> None:
        super().__init__(learning_rate, name="MomentumTF1")
        self.momentum = momentum

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable and its slot; see ``Optimizer.update``."""
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots[0].handle,
            lr=progress.rate(dtype),
            grad=gradient,
            momentum=progress.constant(self.momentum, dtype),
        )


class SGD(Optimizer):
    """Gradient descent without momentum: ``weight = weight - learning_rate * gradient``.

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
    """

    def __init__(self, learning_rate: LearningRate) -> None:
        super().__init__(learning_rate, name="SGD")

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable; see ``Optimizer.update``."""
        variable.assign_sub(gradient * progress.rate(variable.dtype))


class AdamTF1(Optimizer):
    """Adam as in TensorFlow 1 (``tf.compat.v1.train.AdamOptimizer``): one kernel, one pass.

    Variables can have their own share of the learning rate and their own first step (``set_layer_rates``).

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        beta_1: decay of the mean of the gradients, in [0, 1).
        beta_2: decay of the mean of their squares, in [0, 1).
        epsilon: added to the square root, above 0; the default is that of TensorFlow 1.
        name: name of the optimizer.
    """

    SLOTS = ("m", "v")

    def __init__(
        self,
        learning_rate: LearningRate,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "Adam",
    ) -> None:
        super().__init__(learning_rate, name=name)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def own_rate(self, variable: tf.Variable, progress: Progress) -> tf.Tensor:
        """Returns the learning rate of a variable in this step, a scalar of its dtype."""
        return progress.rate(variable.dtype, self.rate_of(variable).share)

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable and its slots; see ``Optimizer.update``."""
        mean, square = slots
        dtype, first_step = variable.dtype, self.rate_of(variable).first_step
        beta_1, beta_2 = progress.constant(self.beta_1, dtype), progress.constant(self.beta_2, dtype)
        step = progress.once(("step", first_step, dtype), lambda: tf.cast(progress.step + (1 - first_step), dtype))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=progress.once(("beta_1", first_step, dtype), lambda: beta_1**step),
            beta2_power=progress.once(("beta_2", first_step, dtype), lambda: beta_2**step),
            lr=self.own_rate(variable, progress),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=progress.constant(self.epsilon, dtype),
            grad=gradient,
        )
