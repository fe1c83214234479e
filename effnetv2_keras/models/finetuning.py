"""Which parts of a network train: from a layer on, and with or without BatchNorm."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.keras_compat import set_trainable_flag, sublayers


def set_trainable(
    model: tf.keras.Model,
    *,
    trainable_from: str | None = None,
    trainable_layers: str | None = None,
    freeze_bn: bool = False,
    layers: Mapping[str, tf.keras.layers.Layer] | None = None,
) -> None:
    r"""Sets which layers of a network train; what an earlier call set is forgotten.

    The frozen layers' variables are no longer among ``model.trainable_variables``, and their BatchNorms use and keep
    their moving averages even when the model is called with ``training=True``. Only this network's layers change, not
    those of what made its ``input_tensor`` or of what was built on it. ``compile`` the model afterwards, as always in
    Keras. ``.keras`` files keep the setting, files of weights do not; ``set_trainable(model)`` undoes it.

    Args:
        model: a model of ``build_model``, or one made of its layers.
        trainable_from: name of the first layer that trains, without the model's prefix, as ``layers_by_role`` has it:
            ``"block_5"``, or ``"classifier"`` for that one alone. Every layer before it is frozen. None trains all.
        trainable_layers: in place of it, a regular expression; the layers whose whole name it matches train, such as
            ``"block_1\d|head|classifier"``. All others are frozen. (``train.varsexp`` picks single variables, and
            leaves all BatchNorms running.)
        freeze_bn: freezes the BatchNorms of the layers that train, too: scale, offset and moving averages stay, which
            is what small batches need.
        layers: the layers to set by the names to use for them, if it is another model; None: ``layers_by_role(model)``.

    Raises:
        UsageError: if the model has no such layer; the message suggests the nearest one, or names them all. Also if
            both are given, or if ``model.trainable`` is False, under which nothing trains whatever its layers say.
        ValueError: if ``build_model`` did not make the model, and no ``layers`` are given.
    """
    if not model.trainable:
        raise UsageError(f"{model.name!r} is frozen as a whole; set model.trainable = True first.")
    if trainable_from is not None and trainable_layers is not None:
        raise UsageError(
            f"trainable_from is {trainable_from!r} and trainable_layers {trainable_layers!r}; give one of them."
        )
    roles = layers_by_role(model) if layers is None else layers
    if trainable_from is not None and trainable_from not in roles:
        near = difflib.get_close_matches(trainable_from, roles, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"trainable_from is {trainable_from!r}, which is no layer of {model.name!r}; did you mean {near!r}? "
            f"Its layers: {', '.join(roles)}."
        )
    chosen = _matching(trainable_layers, roles) if trainable_layers is not None else [*roles]
    if trainable_from is not None:
        chosen = chosen[chosen.index(trainable_from) :]
    for role, layer in roles.items():
        set_trainable_flag(layer, role in chosen)
        for part in sublayers(layer) if freeze_bn else ():
            if isinstance(part, tf.keras.layers.BatchNormalization):
                part.trainable = False


def _matching(expression: str, roles: Iterable[str]) -> list[str]:
    try:
        chosen = [role for role in roles if re.fullmatch(expression, role)]
    except re.error as error:
        raise UsageError(f"trainable_layers is {expression!r}, which is no regular expression: {error}.") from error
    if not chosen:
        raise UsageError(f"trainable_layers is {expression!r}, which matches none of the layers: {', '.join(roles)}.")
    return chosen
