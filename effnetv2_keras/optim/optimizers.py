"""Builds the optimizer that ``train.optimizer`` names, with the settings of the reference code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from effnetv2_keras.optim.base import LearningRate, Optimizer
from effnetv2_keras.optim.decoupled import LAMB, AdamW
from effnetv2_keras.optim.loss_scale import LossScale
from effnetv2_keras.optim.schedules import WeightDecay
from effnetv2_keras.optim.tf1 import SGD, AdamTF1, MomentumTF1, RMSpropTF1

COUPLED: dict[str, Callable[..., Optimizer]] = {
    "rmsprop": RMSpropTF1,
    "momentum": MomentumTF1,
    "sgd": SGD,
    "adam": AdamTF1,
}
"""Optimizers with coupled weight decay: L2 in the loss. They are those of the reference code, as in TensorFlow 1."""

DECOUPLED: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "lamb": LAMB}
"""Optimizers with decoupled weight decay."""

OPTIMIZERS = {**COUPLED, **DECOUPLED}
"""The optimizer for each ``TrainConfig.optimizer``."""


def uses_decoupled_weight_decay(name: str) -> bool:
    """Returns whether the optimizer decays the weights itself; for all others weight decay is L2 in the loss."""
    return name in DECOUPLED


def make_optimizer(
    name: str,
    *,
    schedule: LearningRate,
    weight_decay: WeightDecay | None = None,
    not_decayed: Sequence[Any] = (),
    loss_scaling: bool = False,
) -> Optimizer:
    """Returns an optimizer; call this and its ``build`` in the scope of the strategy.

    Args:
        name: a key of ``OPTIMIZERS``.
        schedule: learning rate: a constant, or a function of the number of finished steps.
        weight_decay: decoupled weight decay as a function of the step; it is multiplied by the learning rate. None for
            no weight decay. Optimizers without ``uses_decoupled_weight_decay`` ignore it.
        not_decayed: variables without weight decay.
        loss_scaling: whether the optimizer has a ``loss_scale``, for float16.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"Unknown optimizer {name!r}; use one of: {', '.join(OPTIMIZERS)}.")
    if name in DECOUPLED:
        optimizer = DECOUPLED[name](schedule, weight_decay=weight_decay or WeightDecay(0.0), not_decayed=not_decayed)
    else:
        optimizer = COUPLED[name](schedule)
    if loss_scaling:
        optimizer.loss_scale = LossScale()
    return optimizer
