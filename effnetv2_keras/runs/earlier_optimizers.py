"""Restoring of what the optimizers of earlier versions, which were those of Keras 2, wrote into checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from effnetv2_keras.optim.base import Hidden, Optimizer

_KEY = "optimizer/{}/.ATTRIBUTES/VARIABLE_VALUE"
_OF_ADDONS = ".OPTIMIZER_SLOT/optimizer/"


def restorable(optimizer: Optimizer, stored: Mapping[str, Any]) -> tf.Module:
    """Returns an object whose parts are those of a checkpoint's optimizer; restoring them restores the optimizer.

    Args:
        optimizer: a built optimizer.
        stored: shapes of the variables in the checkpoint by their keys. Optimizers of earlier versions also have the
            last learning rate, which is not needed, and "sgd" has a slot for each variable that is always 0.
    """
    if any(_OF_ADDONS in key for key in stored):
        return _OfAddons(optimizer, stored)
    return _OfKeras(optimizer, stored)


class _OfKeras(tf.Module):
    def __init__(self, optimizer: Optimizer, stored: Mapping[str, Any]) -> None:
        super().__init__()
        self._iterations = optimizer.iterations
        own = optimizer.slots
        numbers = range(len(own) + 1, len(own) + 1 + (0 if own else _count(stored)))
        unused = [_unused(stored[_KEY.format(f"_variables/{number}")]) for number in numbers]
        self._variables = [optimizer.iterations, *own, *unused]
        if optimizer.loss_scale:
            self.loss_scale = optimizer.loss_scale
        if _KEY.format("_current_learning_rate") in stored:
            self._current_learning_rate = _unused([])


def _count(stored: Mapping[str, Any]) -> int:
    """Returns the number of slots in a checkpoint of an optimizer of Keras 2."""
    pattern = re.compile(re.escape(_KEY).replace(r"\{\}", r"_variables/\d+"))
    return sum(bool(pattern.fullmatch(key)) for key in stored)


def _unused(shape: Any, dtype: tf.DType = tf.float32) -> tf.Variable:
    return tf.Variable(tf.zeros(shape, dtype), trainable=False)


class _OfAddons(tf.Module):
    """LAMB of TensorFlow Addons: a checkpoint has its slots as parts of the variables of the model."""

    def __init__(self, optimizer: Optimizer, stored: Mapping[str, Any]) -> None:
        super().__init__()
        self.iter = optimizer.iterations
        self._optimizer = Hidden(optimizer)
        for key, shape in stored.items():
            match = re.fullmatch(re.escape(_KEY).replace(r"\{\}", r"(\w+)"), key)
            if match and match[1] != "iter":
                setattr(self, match[1], _unused(shape))

    def _create_or_restore_slot_variable(self, slot_variable_position: Any, slot_name: str, variable: Any) -> None:
        """Restores a slot; ``tf.train.Checkpoint`` calls this for each one (there is no public way to read them)."""
        slot_variable_position.restore(self._optimizer.value.slot_of(variable, slot_name))
