"""The optimizers with decoupled weight decay: AdamW and LAMB."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.optim.base import Hidden, LearningRate, Optimizer, Progress, plain_variable
from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import AdamTF1


@dataclasses.dataclass(frozen=True)
class _Decay:
    """Weight decay as a function of the step, and the variables without it."""

    at: WeightDecay
    excepted: tuple[tf.Variable, ...]

    @classmethod
    def of(cls, weight_decay: WeightDecay, not_decayed: Sequence[Any]) -> Hidden[_Decay]:
        return Hidden(cls(weight_decay, tuple(plain_variable(variable) for variable in not_decayed)))

    def has(self, variable: tf.Variable) -> bool:
        return all(variable is not other for other in self.excepted)

    def now(self, progress: Progress, dtype: tf.DType) -> tf.Tensor:
        return progress.once(("weight decay", dtype), lambda: tf.cast(self.at(progress.step), dtype))


class AdamW(AdamTF1):
    """Adam with decoupled weight decay (arXiv 1711.05101) that may grow over the run.

    Before Adam's update, each variable is multiplied by ``1 - learning_rate * weight_decay(step)``, where ``step`` is
    the number of finished steps.

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        weight_decay: weight decay as a function of the step.
        not_decayed: variables without weight decay.
    """

    def __init__(
        self, learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[Any] = ()
    ) -> None:
        super().__init__(learning_rate, name="AdamW")
        self._decay = _Decay.of(weight_decay, not_decayed)

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Decays the weights of one variable, then updates it and its slots; see ``Optimizer.update``."""
        if self._decay.value.has(variable):
            decay = self._decay.value.now(progress, variable.dtype)
            variable.assign_sub(variable * decay * self.own_rate(variable, progress))
        super().update(variable, gradient, progress, *slots)


class LAMB(Optimizer):
    """LAMB (arXiv 1904.00962), an optimizer for large batches, with the arithmetic of TensorFlow Addons.

    The update of a variable is Adam's update plus ``weight_decay(step)`` times the variable, scaled to the norm of the
    variable. ``beta_1`` is 0.9, ``beta_2`` 0.999 and ``epsilon`` 1e-6 (defaults of Addons). Updates of variables
    without weight decay are not scaled (also the default of Addons).

    Args:
        learning_rate: a constant, or a function of the number of finished steps.
        weight_decay: weight decay as a function of the step.
        not_decayed: variables without weight decay.
    """

    SLOTS = ("m", "v")

    def __init__(
        self, learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[Any] = ()
    ) -> None:
        super().__init__(learning_rate, name="LAMB")
        self.beta_1, self.beta_2, self.epsilon = 0.9, 0.999, 1e-6
        self._decay = _Decay.of(weight_decay, not_decayed)

    def update(self, variable: tf.Variable, gradient: tf.Tensor, progress: Progress, *slots: tf.Variable) -> None:
        """Updates one variable and its slots; see ``Optimizer.update``."""
        mean, square = slots
        dtype = variable.dtype
        beta_1, beta_2 = progress.constant(self.beta_1, dtype), progress.constant(self.beta_2, dtype)
        step = progress.once(("step", dtype), lambda: tf.cast(progress.step + 1, dtype))
        rest_1 = progress.once(("rest_1", dtype), lambda: 1 - beta_1**step)
        rest_2 = progress.once(("rest_2", dtype), lambda: 1 - beta_2**step)
        mean.assign(mean * beta_1 + gradient * (1 - beta_1))
        square.assign(square * beta_2 + gradient * gradient * (1 - beta_2))
        update = mean / rest_1 / (tf.sqrt(square / rest_2) + self.epsilon)
        scale = tf.constant(1.0, dtype)
        if self._decay.value.has(variable):
            update += self._decay.value.now(progress, dtype) * variable
            norm, update_norm = tf.norm(variable), tf.norm(update)
            scale = tf.where((norm > 0) & (update_norm > 0), tf.math.divide_no_nan(norm, update_norm), 1)
        variable.assign_sub(scale * progress.rate(dtype) * update)
