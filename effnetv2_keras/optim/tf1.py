"""The optimizers of TensorFlow 1 as Keras optimizers: each updates a variable with TensorFlow 1's kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Union

import tensorflow as tf

LearningRate = Union[float, tf.keras.optimizers.schedules.LearningRateSchedule]


@dataclasses.dataclass(frozen=True)
class LayerRate:
    """How the variables of a layer are updated in fine-tuning.

    Attributes:
        share: their learning rate as a share of the optimizer's, in (0, 1].
        first_step: number of steps before their first update, from which Adam corrects the bias of its averages.
    """

    share: float = 1.0
    first_step: int = 0


@tf.keras.utils.register_keras_serializable(package="effnetv2_keras")
class RMSpropTF1(tf.keras.optimizers.Optimizer):
    """RMSProp as in TensorFlow 1 (``tf.compat.v1.train.RMSPropOptimizer``).

    For a gradient ``g``::

        mean_square = rho * mean_square + (1 - rho) * g**2
        momentum = momentum_rate * momentum + learning_rate * g / sqrt(mean_square + epsilon)
        weight = weight - momentum

    In contrast to ``tf.keras.optimizers.RMSprop``, ``mean_square`` starts at one instead of zero, which makes the first
    updates much smaller, and the defaults are those of the reference code.

    Args:
        learning_rate: a number or a schedule.
        rho: decay of the mean square, in [0, 1).
        momentum: decay of the momentum, in [0, 1).
        epsilon: added to the mean square, inside the square root, above 0.
        name: name of the optimizer.
        **kwargs: arguments of ``tf.keras.optimizers.Optimizer``.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        name: str = "RMSpropTF1",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the slots of ``var_list``; call it before restoring a checkpoint."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._mean_squares = [
            self.add_variable_from_reference(variable, "mean_square", initial_value=tf.ones_like(variable))
            for variable in var_list
        ]
        self._momentums = [self.add_variable_from_reference(variable, "momentum") for variable in var_list]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its slots."""
        # Under a strategy, `variable` is one replica's copy. Keras' optimizers find its slots in the same way.
        index = self._index_dict[self._var_key(variable)]
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._mean_squares[index].handle,
            mom=self._momentums[index].handle,
            lr=tf.cast(self.learning_rate, dtype),
            rho=tf.constant(self.rho, dtype),
            momentum=tf.constant(self.momentum, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


@tf.keras.utils.register_keras_serializable(package="effnetv2_keras")
class MomentumTF1(tf.keras.optimizers.Optimizer):
    """SGD with momentum as in TensorFlow 1 (``tf.compat.v1.train.MomentumOptimizer``) and PyTorch.

    For a gradient ``g``::

        accumulator = momentum * accumulator + g
        weight = weight - learning_rate * accumulator

    ``tf.keras.optimizers.SGD`` multiplies by the learning rate inside the accumulator, so a new rate affects future
    gradients only. With a constant learning rate the two are the same.

    Args:
        learning_rate: a number or a schedule.
        momentum: decay of the accumulator, in [0, 1).
        name: name of the optimizer.
        **kwargs: arguments of ``tf.keras.optimizers.Optimizer``.
    """

    def __init__(
        self, learning_rate: LearningRate, momentum: float = 0.9, name: str = "MomentumTF1", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the slots of ``var_list``; call it before restoring a checkpoint."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._accumulators = [self.add_variable_from_reference(variable, "accumulator") for variable in var_list]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its slot."""
        dtype = variable.dtype
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._accumulators[self._index_dict[self._var_key(variable)]].handle,
            lr=tf.cast(self.learning_rate, dtype),
            grad=gradient,
            momentum=tf.constant(self.momentum, dtype),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
        }


@tf.keras.utils.register_keras_serializable(package="effnetv2_keras")
class AdamTF1(tf.keras.optimizers.Adam):
    """Keras' Adam with the rounding of TensorFlow 1 (``tf.compat.v1.train.AdamOptimizer``): one kernel, one pass.

    The update rule is that of Keras; ``amsgrad`` is not supported. Set ``epsilon=1e-8``, the default of TensorFlow 1.
    """

    _of_layers: Mapping[Any, LayerRate] = {}

    def set_layer_rates(self, rates: Sequence[tuple[tf.Variable, LayerRate]]) -> None:
        """Sets the share of the learning rate, and the first step, of variables that have their own."""
        self._of_layers = {self._var_key(variable): rate for variable, rate in rates}

    def rate_of(self, variable: tf.Variable) -> tf.Tensor:
        """Returns the learning rate of a variable in the next step, a scalar of its dtype."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        own = self._of_layers.get(self._var_key(variable))
        return rate if own is None else rate * tf.constant(own.share, variable.dtype)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its slots."""
        key, dtype = self._var_key(variable), variable.dtype
        index = self._index_dict[key]
        before = self._of_layers[key].first_step if key in self._of_layers else 0
        step = tf.cast(self.iterations + (1 - before), dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=self.rate_of(variable),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )
