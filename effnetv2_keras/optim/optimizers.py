"""Optimizers by name, and TensorFlow 1's RMSProp, which the recipes of the paper are tuned for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.optim import losses


@tf.keras.saving.register_keras_serializable(package="effnetv2_keras")
class RMSpropTF1(tf.keras.optimizers.Optimizer):
    """RMSProp as in TensorFlow 1 (``tf.compat.v1.train.RMSPropOptimizer``).

    For a gradient ``g``::

        mean_square = rho * mean_square + (1 - rho) * g**2
        momentum = momentum_rate * momentum + learning_rate * g / sqrt(mean_square + epsilon)
        weight = weight - momentum

    It differs from ``tf.keras.optimizers.RMSprop`` in where ``mean_square`` starts (at one, not at zero, which makes
    the first steps far smaller) and in the defaults, which are those of the reference code.

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
        learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule,
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
        """Updates one variable and its slots with the kernel that TensorFlow 1 uses."""
        # Under a strategy `variable` is one replica's copy; these two, as in Keras' own optimizers, find its position.
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
        """The constructor's arguments, serialised."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


OPTIMIZERS: dict[str, Callable[..., tf.keras.optimizers.Optimizer]] = {
    "rmsprop": RMSpropTF1,
    "momentum": functools.partial(tf.keras.optimizers.SGD, momentum=0.9),
    "sgd": tf.keras.optimizers.SGD,
    "adam": functools.partial(tf.keras.optimizers.Adam, epsilon=1e-8),
    "adamw": functools.partial(tf.keras.optimizers.AdamW, epsilon=1e-8),
}
"""Optimizers by the name of ``TrainConfig.optimizer``, with the settings of the reference code.

"momentum" is Keras' SGD without Nesterov: the learning rate is inside the accumulator, whereas TensorFlow 1 and
PyTorch multiply by it afterwards; the two are the same while the learning rate stands still.
"""


def uses_decoupled_weight_decay(name: str) -> bool:
    """Whether the optimizer shrinks the weights itself; for all others weight decay is L2 in the loss."""
    return name == "adamw"


def make_optimizer(
    name: str,
    *,
    schedule: tf.keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
) -> tf.keras.optimizers.Optimizer:
    """Makes an optimizer; call it in the scope of the strategy.

    Args:
        name: a key of ``OPTIMIZERS``.
        schedule: learning rate over the steps.
        weight_decay: decoupled weight decay, at least 0, which each step multiplies by the learning rate and applies
            to the variables that ``losses.decayed_variables`` selects. Only for optimizers with
            ``uses_decoupled_weight_decay``; the others take no notice of it.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}; use one of: {', '.join(OPTIMIZERS)}.")
    settings: dict[str, Any] = {"jit_compile": False}
    if not uses_decoupled_weight_decay(name):
        return OPTIMIZERS[name](learning_rate=schedule, **settings)
    optimizer = OPTIMIZERS[name](learning_rate=schedule, weight_decay=weight_decay, **settings)
    optimizer.exclude_from_weight_decay(var_names=[losses.NOT_DECAYED])
    return optimizer
