"""The optimizers with decoupled weight decay: AdamW and LAMB."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import AdamTF1, LearningRate


class AdamW(AdamTF1):
    """Adam with decoupled weight decay (arXiv 1711.05101) that may grow over the run.

    Before Adam's update, each variable is multiplied by ``1 - learning_rate * weight_decay(step)``, where ``step`` is
    the number of finished steps.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: weight decay as a function of the step.
        not_decayed: variables without weight decay.
    """

    def __init__(
        self, learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[tf.Variable] = ()
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, epsilon=1e-8, jit_compile=False, name="AdamW")
        self.exclude_from_weight_decay(var_list=list(not_decayed))

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Decays the weights of one variable, then updates it and its slots."""
        if self._use_weight_decay(variable):
            variable.assign_sub(variable * tf.cast(self.weight_decay, variable.dtype) * self.rate_of(variable))
        super().update_step(gradient, variable)

    def _apply_weight_decay(self, variables: Sequence[tf.Variable]) -> None:
        """Does nothing: ``update_step`` decays each variable at its own rate."""

    @property
    def weight_decay(self) -> tf.Tensor:
        """Weight decay of the next step, a float32 scalar."""
        return self._weight_decay(self.iterations)

    @weight_decay.setter
    def weight_decay(self, weight_decay: WeightDecay) -> None:
        self._weight_decay = weight_decay


class LAMB(tf.keras.optimizers.Adam):
    """LAMB (arXiv 1904.00962) with the arithmetic of TensorFlow Addons, which does not exist beyond TensorFlow 2.15.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: weight decay as a function of the step.
        not_decayed: variables without weight decay; their updates are not scaled either.
    """

    def __init__(
        self, learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[tf.Variable] = ()
    ) -> None:
        super().__init__(learning_rate, epsilon=1e-6, jit_compile=False, name="LAMB")
        self._decay = weight_decay
        self._not_decayed = {self._var_key(variable) for variable in not_decayed}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable and its slots."""
        key, dtype = self._var_key(variable), variable.dtype
        mean, square = self._momentums[self._index_dict[key]], self._velocities[self._index_dict[key]]
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        step = tf.cast(self.iterations + 1, dtype)
        mean.assign(mean * beta_1 + gradient * (1 - beta_1))
        square.assign(square * beta_2 + gradient * gradient * (1 - beta_2))
        update = mean / (1 - beta_1**step) / (tf.sqrt(square / (1 - beta_2**step)) + self.epsilon)
        scale = tf.constant(1.0, dtype)
        if key not in self._not_decayed:
            update += tf.cast(self._decay(self.iterations), dtype) * variable
            norm, update_norm = tf.norm(variable), tf.norm(update)
            scale = tf.where((norm > 0) & (update_norm > 0), tf.math.divide_no_nan(norm, update_norm), 1)
        variable.assign_sub(scale * tf.cast(self.learning_rate, dtype) * update)


def make_lamb(
    learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[tf.Variable] = ()
) -> Any:
    """Builds LAMB (arXiv 1904.00962), an optimizer for large batches: from TensorFlow Addons if installed, or ``LAMB``.

    The update of a variable is Adam's update plus ``weight_decay(step)`` times the variable, scaled to the norm of the
    variable. ``beta_1`` is 0.9, ``beta_2`` 0.999 and ``epsilon`` 1e-6 (defaults of Addons). Updates of variables
    without weight decay are not scaled (also the default of Addons).

    Args:
        learning_rate: a number or a schedule.
        weight_decay: weight decay as a function of the step, as for ``AdamW``.
        not_decayed: variables without weight decay.

    Returns:
        A ``tf.keras.optimizers.legacy.Optimizer`` of Addons, or a ``tf.keras.optimizers.Optimizer``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the warning that Addons is no longer developed
            from tensorflow_addons import optimizers as addons
    except (ImportError, AttributeError):  # AttributeError: Addons does not support this TensorFlow
        return LAMB(learning_rate, weight_decay=weight_decay, not_decayed=not_decayed)
    names = "|".join(re.escape(variable.name.split(":")[0]) for variable in not_decayed)
    # The second replica's copy of the variable "kernel" is named "kernel/replica_1:0".
    excluded = [rf"^(?:{names})(?:/replica_\d+)?:\d+$"] if names else None
    optimizer = addons.LAMB(learning_rate, exclude_from_weight_decay=excluded)
    optimizer.weight_decay = lambda: weight_decay(optimizer.iterations)
    return optimizer
