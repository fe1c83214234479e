"""Builds the optimizer that ``train.optimizer`` names, with the settings of the reference code."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.optim.decoupled import AdamW, make_lamb
from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import AdamTF1, LayerRate, MomentumTF1, RMSpropTF1

COUPLED: dict[str, Callable[..., tf.keras.optimizers.Optimizer]] = {
    "rmsprop": RMSpropTF1,
    "momentum": MomentumTF1,
    "sgd": tf.keras.optimizers.SGD,
    "adam": functools.partial(AdamTF1, epsilon=1e-8),
}
"""Optimizers with coupled weight decay: L2 in the loss. They are those of the reference code, as in TensorFlow 1."""

DECOUPLED: dict[str, Callable[..., Any]] = {"adamw": AdamW, "lamb": make_lamb}
"""Optimizers with decoupled weight decay."""

OPTIMIZERS = {**COUPLED, **DECOUPLED}
"""The optimizer for each ``TrainConfig.optimizer``."""


def uses_decoupled_weight_decay(name: str) -> bool:
    """Returns whether the optimizer decays the weights itself; for all others weight decay is L2 in the loss."""
    return name in DECOUPLED


def make_optimizer(
    name: str,
    *,
    schedule: tf.keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: WeightDecay | None = None,
    not_decayed: Sequence[tf.Variable] = (),
) -> Any:
    """Returns an optimizer; call this and ``build`` in the scope of the strategy.

    Args:
        name: a key of ``OPTIMIZERS``.
        schedule: learning-rate schedule.
        weight_decay: decoupled weight decay as a function of the step; it is multiplied by the learning rate. None for
            no weight decay. Optimizers without ``uses_decoupled_weight_decay`` ignore it.
        not_decayed: variables without weight decay.

    Returns:
        A ``tf.keras.optimizers.Optimizer``; for "lamb", if TensorFlow Addons is installed, a
        ``tf.keras.optimizers.legacy.Optimizer``. Both have ``apply_gradients`` and ``iterations``.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}; use one of: {', '.join(OPTIMIZERS)}.")
    if name in DECOUPLED:
        return DECOUPLED[name](schedule, weight_decay=weight_decay or WeightDecay(0.0), not_decayed=not_decayed)
    return COUPLED[name](learning_rate=schedule, jit_compile=False)


def set_layer_rates(optimizer: Any, rates: Sequence[tuple[tf.Variable, LayerRate]]) -> None:
    """Gives variables their own share of the learning rate and their own first step.

    Only Adam and AdamW need the first step, and only they can have a share below 1 (``TrainConfig`` refuses others).
    """
    if isinstance(optimizer, AdamTF1):
        optimizer.set_layer_rates(rates)


def build(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Creates the slots of ``variables``, so that a checkpoint can be restored before the first step.

    Args:
        optimizer: an optimizer of ``make_optimizer``, or a ``LossScaleOptimizer`` around one.
        variables: the variables that are passed to ``apply_gradients``, in the same order.
    """
    if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)  # legacy optimizers have no public function for this
    else:
        optimizer.build(variables)
