"""The optimizers that shrink the weights themselves, outside the gradient: AdamW and LAMB."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import AdamTF1, LearningRate


class AdamW(AdamTF1):
    """Adam with decoupled weight decay (arXiv 1711.05101) that may grow over the run.

    Before Adam's step each variable loses ``learning_rate * weight_decay(step)`` of itself, ``step`` being the steps
    taken so far.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: over the steps.
        not_decayed: variables without weight decay.
    """

    def __init__(
        self, learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[tf.Variable] = ()
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, epsilon=1e-8, jit_compile=False, name="AdamW")
        self.exclude_from_weight_decay(var_list=list(not_decayed))

    @property
    def weight_decay(self) -> tf.Tensor:
        """That of the next step, a float32 scalar."""
        return self._weight_decay(self.iterations)

    @weight_decay.setter
    def weight_decay(self, weight_decay: WeightDecay) -> None:
        self._weight_decay = weight_decay


def make_lamb(
    learning_rate: LearningRate, *, weight_decay: WeightDecay, not_decayed: Sequence[tf.Variable] = ()
) -> Any:
    """Makes TensorFlow Addons' LAMB (arXiv 1904.00962), an optimizer for large batches.

    A variable's step is Adam's plus ``weight_decay(step)`` times the variable, scaled to the norm of the variable
    (``beta_1`` 0.9, ``beta_2`` 0.999, ``epsilon`` 1e-6: Addons' defaults). Variables without weight decay are not
    scaled, as is Addons' default too.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: over the steps, as for ``AdamW``.
        not_decayed: variables without weight decay.

    Returns:
        A ``tf.keras.optimizers.legacy.Optimizer``.

    Raises:
        UsageError: if TensorFlow Addons cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that Addons is no longer developed
            from tensorflow_addons.optimizers import LAMB
    except (ImportError, AttributeError) as error:  # an AttributeError where it does not know this TensorFlow
        raise UsageError(
            f"train.optimizer is 'lamb', which comes from TensorFlow Addons, and that cannot be imported: {error}. "
            "Run `pip install tensorflow-addons==0.23.0` (TensorFlow 2.15 is the last that it supports), or use "
            "train.optimizer=adamw, which needs no Addons."
        ) from error
    names = "|".join(re.escape(variable.name.split(":")[0]) for variable in not_decayed)
    # The name of the second replica's copy of a variable is "kernel/replica_1:0".
    excluded = [rf"^(?:{names})(?:/replica_\d+)?:\d+$"] if names else None
    optimizer = LAMB(learning_rate, exclude_from_weight_decay=excluded)
    optimizer.weight_decay = lambda: weight_decay(optimizer.iterations)
    return optimizer
