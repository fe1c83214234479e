"""Selects by name the variables that the optimizer updates and the variables with weight decay."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.models.naming import layers_by_name, variable_names
from effnetv2_keras.optim.base import LayerRate


def moved_variables(model: tf.keras.Model, varsexp: str | None) -> list[tf.Variable]:
    r"""Returns the variables that the optimizer updates, in the order of ``model.trainable_variables``.

    The other variables keep their values, but their layers still run in training mode: BatchNorm uses the statistics of
    the batch and updates its moving statistics. (``set_trainable`` freezes whole layers with their statistics.) The L2
    penalty in the loss and the moving average of the weights cover all variables. The decoupled weight decay of AdamW
    and LAMB only covers the variables that they update.

    Args:
        model: a model from ``build_for``.
        varsexp: regular expression that is matched from the start of a variable's name, such as
            ``"block_1\d/|classifier/"`` for names like ``"block_10/squeeze_excite/reduce/bias"``. None selects all.
            Source: ``train.varsexp`` of the reference code, which fails if the expression matches every variable.

    Raises:
        UsageError: if the expression matches no trainable variable.
    """
    named = _trainable(model)
    chosen = [variable for name, variable in named.items() if varsexp is None or re.match(varsexp, name)]
    if varsexp is not None and not chosen:
        raise UsageError(
            f"train.varsexp is {varsexp!r}, which matches none of the {len(named)} trainable variables of "
            f"{model.name!r}. Use a regular expression that matches from the start of names such as "
            f"{_examples(list(named))}."
        )
    return tf_variables(chosen)


def split_by_decay(model: tf.keras.Model, exclude: str | None) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """Returns the trainable variables with weight decay and those without, whether the optimizer updates them or not.

    Args:
        model: a model from ``build_for``.
        exclude: regular expression that is matched from the start of a variable's name; the matching variables have no
            weight decay. None excludes no variable. Source: ``train.weight_decay_exclude`` of the reference code.
    """
    decayed: list[Any] = []
    others: list[Any] = []
    for name, variable in _trainable(model).items():
        (others if exclude is not None and re.match(exclude, name) else decayed).append(variable)
    return tf_variables(decayed), tf_variables(others)


def classifier_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Returns the trainable variables of the last layer that has any."""
    return tf_variables(_layers(model)[-1].trainable_variables)


def layer_rates(model: tf.keras.Model, *, first_layer: float, head_steps: int) -> list[tuple[tf.Variable, LayerRate]]:
    """Returns the share of the learning rate and the first step of every trainable variable.

    Args:
        model: a model from ``build_for``.
        first_layer: share of the first layer with variables, in (0, 1]; that of the classifier is 1, and from layer to
            layer it grows by the same factor (discriminative fine-tuning, arXiv 1801.06146). A layer is a block of
            ``build_model``, or a layer of a Keras network.
        head_steps: number of steps at the start that train only the classifier.
    """
    layers = _layers(model)
    last = max(len(layers) - 1, 1)
    return [
        (variable, LayerRate(first_layer ** (1 - number / last), head_steps if layer is not layers[-1] else 0))
        for number, layer in enumerate(layers)
        for variable in tf_variables(layer.trainable_variables)
    ]


def _layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Returns the layers that have variables to train, from the input to the classifier."""
    return [layer for layer in layers_by_name(model).values() if layer.trainable_variables]


def _trainable(model: tf.keras.Model) -> dict[str, Any]:
    """Returns the trainable weights, which Keras 3 wraps in its own class, by name."""
    names = variable_names(layers_by_name(model))
    with contextlib.suppress(ValueError):  # not a model of build_model
        names.update(variable_names(layers_by_role(model)))
    return {names[id(variable)]: variable for variable in model.trainable_variables}


def _examples(names: list[str]) -> str:
    return ", ".join(repr(names[position]) for position in sorted({0, len(names) // 2, len(names) - 1}))
