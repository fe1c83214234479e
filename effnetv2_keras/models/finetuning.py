"""Which parts of a network train: from a layer on, and with or without BatchNorm."""

from __future__ import annotations

import difflib

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import layers_by_role


def set_trainable(model: tf.keras.Model, *, trainable_from: str | None = None, freeze_bn: bool = False) -> None:
    """Sets which layers of a network train; what an earlier call set is forgotten.

    The frozen layers' variables are no longer among ``model.trainable_variables``, and their BatchNorms use and keep
    their moving averages even when the model is called with ``training=True``. Only this network's layers change, not
    those of what made its ``input_tensor`` or of what was built on it. ``compile`` the model afterwards, as always in
    Keras. ``.keras`` files keep the setting, files of weights do not; ``model.trainable = True`` undoes it.

    Args:
        model: a model of ``build_model``, or one made of its layers.
        trainable_from: name of the first layer that trains, without the model's prefix, as ``layers_by_role`` has it:
            ``"block_5"``, or ``"classifier"`` for that one alone. Every layer before it is frozen. None trains all.
        freeze_bn: freezes the BatchNorms of the layers that train, too: scale, offset and moving averages stay, which
            is what small batches need.

    Raises:
        UsageError: if the model has no layer of that name; the message suggests the nearest one. Also if
            ``model.trainable`` is False, under which nothing trains whatever its layers say.
        ValueError: if ``build_model`` did not make the model.
    """
    if not model.trainable:
        raise UsageError(f"{model.name!r} is frozen as a whole; set model.trainable = True first.")
    roles = layers_by_role(model)
    if trainable_from is not None and trainable_from not in roles:
        near = difflib.get_close_matches(trainable_from, roles, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"trainable_from is {trainable_from!r}, which is no layer of {model.name!r}; did you mean {near!r}? "
            f"Its layers: {', '.join(roles)}."
        )
    trains = trainable_from is None
    for role, layer in roles.items():
        trains = trains or role == trainable_from
        layer.trainable = trains
        for part in layer.submodules if freeze_bn else ():
            if isinstance(part, tf.keras.layers.BatchNormalization):
                part.trainable = False
