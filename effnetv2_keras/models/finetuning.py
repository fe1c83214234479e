"""Chooses which layers of a network are trained, and freezes BatchNorm, for fine-tuning."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.flat_layers import flat_layers, is_flat, names_of
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
        model: a model of ``build_model``, or a model that consists of its layers; or an EfficientNet of Keras' layers,
            such as ``EfficientNetV2B0()`` or one of ``tf.keras.applications``.
        trainable_from: name of the first trainable layer, without the model's prefix, as in ``layers_by_role``:
            ``"block_5"``, or ``"classifier"`` to train only the classifier. All layers before it are frozen. None to
            train all layers. Networks of Keras' layers accept these names too, and those of Keras for a block
            (``"block4b"``) or a layer (``"block4b_expand_conv"``).
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
    units = _units(model) if layers is None else [((name,), layer) for name, layer in layers.items()]
    if trainable_from is None:
        chosen = units if trainable_layers is None else _matching(trainable_layers, units)
    else:
        chosen = units[_position(trainable_from, units, model.name) :]
    trained = {id(layer) for _, layer in chosen}
    for _, layer in units:
        set_trainable_flag(layer, id(layer) in trained)
        for part in (layer, *sublayers(layer)) if freeze_bn else ():
            if isinstance(part, tf.keras.layers.BatchNormalization):
                part.trainable = False


_Unit = tuple[tuple[str, ...], tf.keras.layers.Layer]
"""A layer and the names by which it can be chosen, the most general one first."""


def _units(model: tf.keras.Model) -> list[_Unit]:
    if is_flat(model):
        return [(names_of(place, layer), layer) for place, layer in flat_layers(model)]
    return [((role,), layer) for role, layer in layers_by_role(model).items()]


def _listed(units: Sequence[_Unit]) -> str:
    more = ", or the name of a block or layer of Keras" if any(len(names) > 1 for names, _ in units) else ""
    return ", ".join(dict.fromkeys(names[0] for names, _ in units)) + more


def _position(name: str, units: Sequence[_Unit], model_name: str) -> int:
    """Returns the index of the first layer that has a name."""
    for index, (names, _) in enumerate(units):
        if name in names:
            return index
    known = list(dict.fromkeys(known for names, _ in units for known in names))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise UsageError(
        f"trainable_from is {name!r}, which is not a layer of {model_name!r}; did you mean {near!r}? Its layers are: "
        f"{_listed(units)}."
    )


def _matching(expression: str, units: Sequence[_Unit]) -> list[_Unit]:
    try:
        chosen = [unit for unit in units if any(re.fullmatch(expression, name) for name in unit[0])]
    except re.error as error:
        raise UsageError(
            f"trainable_layers is {expression!r}, which is not a valid regular expression: {error}."
        ) from error
    if not chosen:
        raise UsageError(f"trainable_layers is {expression!r}, which matches none of the layers: {_listed(units)}.")
    return chosen
