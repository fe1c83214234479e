"""Which variables of a network the optimizer moves and which ones weight decay pulls, by their layers' names."""

from __future__ import annotations

import contextlib
import re

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.naming import layers_by_name, variable_names


def moved_variables(model: tf.keras.Model, varsexp: str | None) -> list[tf.Variable]:
    r"""Selects the variables that take gradient steps, in the order of ``model.trainable_variables``.

    The others keep their values, yet the layers that they are in run as in training: BatchNorm uses the statistics of
    the batch, and its moving statistics move on. (``set_trainable`` freezes whole layers with their statistics.) L2 in
    the loss and the moving average cover them all; AdamW and LAMB shrink only what they step.

    Args:
        model: one of ``state.build_for``'s.
        varsexp: a regular expression, matched from the start of a variable's name, such as
            ``"stem/conv/kernel"`` or ``"block_5/squeeze_excite/reduce/bias"``: ``"block_1\d/|classifier/"``. None is
            all. (Reference code, ``train.varsexp``, which fails where the expression matches everything.)

    Raises:
        UsageError: if it matches no trainable variable.
    """
    named = _trainable(model)
    chosen = [variable for name, variable in named.items() if varsexp is None or re.match(varsexp, name)]
    if varsexp is not None and not chosen:
        raise UsageError(
            f"train.varsexp is {varsexp!r}, which matches none of the {len(named)} trainable variables of "
            f"{model.name!r}. It is matched from the start of names such as {_examples(list(named))}."
        )
    return chosen


def split_by_decay(model: tf.keras.Model, exclude: str | None) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """Selects the trainable variables with weight decay, and those without, whether they take gradient steps or not.

    Args:
        model: one of ``state.build_for``'s.
        exclude: a regular expression, matched from the start of a variable's name; those variables have
            none. None excludes nothing. (Reference code, ``train.weight_decay_exclude``.)
    """
    decayed: list[tf.Variable] = []
    others: list[tf.Variable] = []
    for name, variable in _trainable(model).items():
        (others if exclude is not None and re.match(exclude, name) else decayed).append(variable)
    return decayed, others


def _trainable(model: tf.keras.Model) -> dict[str, tf.Variable]:
    names = variable_names(layers_by_name(model))
    with contextlib.suppress(ValueError):  # of another model
        names.update(variable_names(layers_by_role(model)))
    return {names[id(variable)]: variable for variable in model.trainable_variables}


def _examples(names: list[str]) -> str:
    return ", ".join(repr(names[position]) for position in sorted({0, len(names) // 2, len(names) - 1}))
