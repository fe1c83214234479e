"""Chooses which layers of a network are trained, and freezes BatchNorm, for fine-tuning."""

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
    r"""Sets which layers of a network are trained; replaces the setting of an earlier call.

    The variables of frozen layers are removed from ``model.trainable_variables``. Frozen BatchNorms use their moving
    averages and do not update them, even if the model is called with ``training=True``. The setting affects only this
    network, not layers that compute its ``input_tensor`` or layers on top of it. Call ``compile`` afterwards, as always
    in Keras. ``.keras`` files store the setting, files of weights do not. ``set_trainable(model)`` makes all layers
    trainable again.

    Args:
        model: a model of ``build_model``, or a model that consists of its layers.
        trainable_from: name of the first trainable layer, without the model's prefix, as in ``layers_by_role``:
            ``"block_5"``, or ``"classifier"`` to train only the classifier. All layers before it are frozen. None to
            train all layers.
        trainable_layers: alternative to ``trainable_from``: a regular expression that must match the whole name of a
            layer, such as ``"block_1\d|head|classifier"``. All other layers are frozen. (``train.varsexp`` selects
            single variables, and all BatchNorms continue to update their averages.)
        freeze_bn: whether to freeze the BatchNorms of trainable layers too. Their scale, offset and moving averages
            stay constant, which helps with small batches.
        layers: for other models: the layers by name. None for ``layers_by_role(model)``.

    Raises:
        UsageError: if the model has no such layer; the message suggests the nearest one, or lists all. Also if both
            ``trainable_from`` and ``trainable_layers`` are given, or ``model.trainable`` is False, which freezes all
            layers.
        ValueError: if the model is not from ``build_model``, and ``layers`` is None.
    """
    if not model.trainable:
        raise UsageError(f"The whole model {model.name!r} is frozen. Set model.trainable = True first.")
    if trainable_from is not None and trainable_layers is not None:
        raise UsageError(
            f"trainable_from is {trainable_from!r} and trainable_layers is {trainable_layers!r}. Set only one of them."
        )
    roles = layers_by_role(model) if layers is None else layers
    if trainable_from is not None and trainable_from not in roles:
        near = difflib.get_close_matches(trainable_from, roles, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"trainable_from is {trainable_from!r}, which is not a layer of {model.name!r}; did you mean {near!r}? "
            f"Its layers are: {', '.join(roles)}."
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
        raise UsageError(
            f"trainable_layers is {expression!r}, which is not a valid regular expression: {error}."
        ) from error
    if not chosen:
        raise UsageError(f"trainable_layers is {expression!r}, which matches none of the layers: {', '.join(roles)}.")
    return chosen
