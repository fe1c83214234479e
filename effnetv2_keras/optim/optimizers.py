"""Optimizers by name, with the settings of the reference code."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.optim.decoupled import AdamW, make_lamb
from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import AdamTF1, MomentumTF1, RMSpropTF1

COUPLED: dict[str, Callable[..., tf.keras.optimizers.Optimizer]] = {
    "rmsprop": RMSpropTF1,
    "momentum": MomentumTF1,
    "sgd": tf.keras.optimizers.SGD,
    "adam": functools.partial(AdamTF1, epsilon=1e-8),
}
"""Those of the reference code, as TensorFlow 1 had them; their weight decay is L2 in the loss."""

DECOUPLED: dict[str, Callable[..., Any]] = {"adamw": AdamW, "lamb": make_lamb}
"""Those that shrink the weights themselves."""

OPTIMIZERS = {**COUPLED, **DECOUPLED}
"""All optimizers by the name of ``TrainConfig.optimizer``."""


def uses_decoupled_weight_decay(name: str) -> bool:
    """Whether the optimizer shrinks the weights itself; for all others weight decay is L2 in the loss."""
    return name in DECOUPLED


def make_optimizer(
    name: str,
    *,
    schedule: tf.keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: WeightDecay | None = None,
    not_decayed: Sequence[tf.Variable] = (),
) -> Any:
    """Makes an optimizer; call it in the scope of the strategy, and ``build`` it there.

    Args:
        name: a key of ``OPTIMIZERS``.
        schedule: learning rate over the steps.
        weight_decay: decoupled weight decay over the steps, which each step multiplies by the learning rate; None for
            none. Only for optimizers with ``uses_decoupled_weight_decay``; the others take no notice of it.
        not_decayed: variables that it does not apply to.

    Returns:
        A ``tf.keras.optimizers.Optimizer``; for "lamb", where TensorFlow Addons has it, a
        ``tf.keras.optimizers.legacy.Optimizer``. Both have ``apply_gradients`` and ``iterations``.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}; use one of: {', '.join(OPTIMIZERS)}.")
    if name in DECOUPLED:
        return DECOUPLED[name](schedule, weight_decay=weight_decay or WeightDecay(0.0), not_decayed=not_decayed)
    return COUPLED[name](learning_rate=schedule, jit_compile=False)


def build(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Creates the slots of ``variables``, so that a checkpoint can be restored before the first step.

    Args:
        optimizer: what ``make_optimizer`` gave, or a ``LossScaleOptimizer`` of it.
        variables: those that will be passed to ``apply_gradients``, in the same order.
    """
    if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)  # legacy optimizers have no public way
    else:
        optimizer.build(variables)
