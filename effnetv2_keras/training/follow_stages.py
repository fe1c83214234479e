"""A Keras callback that moves dropout, and if asked the learning rate, with the stages in anyone's ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Union

import tensorflow as tf
from absl import logging

from effnetv2_keras.data.fit_input import check_stages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import IS_KERAS_3, sublayers
from effnetv2_keras.models.layers import HeadDropout
from effnetv2_keras.models.naming import is_nested, leaf_layers
from effnetv2_keras.progressive import Stage

LearningRates = Union[Sequence[float], Callable[[Stage], float]]


class FollowStages(tf.keras.callbacks.Callback):
    """Sets the dropout rate of a model at the first epoch of each stage, for ``fit`` with ``progressive_dataset``.

    Works with any model, Keras 2 and 3, with or without a strategy. The rate of a layer is a constant of the compiled
    train step. So this callback makes a new train step in each stage with another rate; it is traced once.

    At the end of training the rates of the last stage stay. They are stored with a saved model, but have no effect on
    predictions. Masks come from Keras' own random numbers; set them with ``tf.keras.utils.set_random_seed``. Unlike the
    batches, they differ after a resumption. To resume, pass the epoch as ``initial_epoch`` of ``fit`` and as
    ``first_epoch`` of ``progressive_dataset``; ``BackupAndRestore`` moves only ``fit`` and does not fit this.

    Args:
        plan: the stages, from ``plan_stages``; the same as those of ``progressive_dataset``.
        learning_rate: learning rate of each stage: a sequence, or a function of the stage. None leaves the learning
            rate to the optimizer and to other callbacks.
        layers: names of the dropout layers whose rate becomes that of the stage. They may have any type with a number
            ``rate``. None takes those that the training loop would take: plain ``Dropout`` between the classifier
            (the last layer with weights) and the last layer with weights before it, and ``HeadDropout``. Dropout and
            stochastic depth elsewhere keep their rates. ``()`` changes no layer.

    Raises:
        UsageError: if a stage trains only the classifier, or there is not one learning rate for each stage; when
            training begins: if ``steps_per_epoch`` of ``fit`` is not set, a stage does not consist of whole epochs, the
            plan ends before the last epoch, a layer is not there or has no rate, the optimizer has a learning-rate
            schedule, or the loss takes integer labels.
    """

    def __init__(
        self,
        plan: Sequence[Stage],
        *,
        learning_rate: LearningRates | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_stages(plan, None)
        self._plan = tuple(plan)
        self._rates: tuple[float, ...] | None = None
        if learning_rate is not None:
            given = map(learning_rate, plan) if callable(learning_rate) else learning_rate
            self._rates = tuple(map(float, given))
            if len(self._rates) != len(self._plan):
                raise UsageError(
                    f"learning_rate has {len(self._rates)} numbers, but the plan has {len(self._plan)} stages. Give "
                    "one number per stage, or a function of the stage."
                )
        if isinstance(layers, str):
            raise UsageError(f"layers is {layers!r}, but must be a list of names. Pass [{layers!r}].")
        self._names = layers
        self._layers: list[Any] = []
        self._stage: Stage | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks that the epochs of ``fit`` fit the plan, and finds the dropout layers."""
        del logs
        steps, epochs = self.params.get("steps"), self.params["epochs"]
        if steps is None:
            raise UsageError("fit does not know how many steps an epoch has. Pass steps_per_epoch to fit.")
        check_stages(self._plan, steps)
        if epochs * steps > self._plan[-1].end_step:
            raise UsageError(
                f"fit trains {epochs} epochs of {steps} steps, but the plan ends at step {self._plan[-1].end_step}. "
                f"Pass steps_per_epoch and epochs to fit whose product is at most that."
            )
        _check_loss(self.model)
        self._layers = dropout_layers(self.model, self._names)
        if not self._layers and self._names is None and any(stage.dropout_rate for stage in self._plan):
            logging.warning(
                "The model has no Dropout before its classifier, so the dropout rates of the stages have no effect."
            )
        self._stage = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rates of the stage to which the epoch belongs, if it is the first of the stage or of the run."""
        del logs
        step = epoch * self.params["steps"]
        stage = next(stage for stage in self._plan if step < stage.end_step)
        if stage is self._stage:
            return
        self._stage = stage
        if self._rates is not None:
            _set_learning_rate(self.model, self._rates[self._plan.index(stage)])
        changed = [layer for layer in self._layers if layer.rate != stage.dropout_rate]
        for layer in changed:
            layer.rate = stage.dropout_rate
        if changed:  # the train step has the old rate as a constant
            self.model.make_train_function(force=True)


def dropout_layers(model: tf.keras.Model, names: Sequence[str] | None) -> list[Any]:
    """Returns the layers whose dropout rate follows the stages; see ``FollowStages``.

    A model that is not built yet is built for RGB images of any size.

    Raises:
        UsageError: if a layer is not there, is there twice, or has no rate that can change.
    """
    if not model.built:
        model.build((None, None, None, 3))
    every = sublayers(model)
    found = _head_dropouts(model) if names is None else [_named(every, name) for name in names]
    for layer in found:
        # In Keras 3, a layer that is made with rate 0 has no generator of random numbers.
        if IS_KERAS_3 and not isinstance(layer, HeadDropout) and not hasattr(layer, "seed_generator"):
            raise UsageError(
                f"Layer {layer.name!r} was made with rate {layer.rate}, so Keras 3 gave it no random numbers, and its "
                "rate cannot change. Make it with a rate above 0, such as that of the last stage."
            )
    return found


def _head_dropouts(model: tf.keras.Model) -> list[Any]:
    leaves = leaf_layers(model) if is_nested(model) else sublayers(model)
    *_, last, classifier = -1, -1, *(number for number, leaf in enumerate(leaves) if leaf.weights)
    plain = tf.keras.layers.Dropout
    return [
        leaf
        for number, leaf in enumerate(leaves)
        if isinstance(leaf, HeadDropout)
        or (type(leaf) is plain and leaf.noise_shape is None and last < number < classifier)
    ]


def _named(layers: Sequence[Any], name: str) -> Any:
    found = [layer for layer in layers if layer.name == name]
    changeable = [layer.name for layer in layers if _has_rate(layer)]
    if len(found) != 1 or not _has_rate(found[0]):
        problem = "is there more than once" if len(found) > 1 else "has no rate" if found else "does not exist"
        raise UsageError(
            f"Layer {name!r} {problem}. Name layers with a dropout rate; this model has "
            f"{', '.join(changeable) or 'none'}."
        )
    return found[0]


def _has_rate(layer: Any) -> bool:
    return isinstance(getattr(layer, "rate", None), (int, float))


def _set_learning_rate(model: tf.keras.Model, rate: float) -> None:
    try:
        model.optimizer.learning_rate = rate
    except TypeError as error:
        raise UsageError(
            "FollowStages was given learning rates, but the optimizer has a learning-rate schedule, which sets them "
            "too. Make the optimizer with a number, or leave learning_rate out."
        ) from error


def _check_loss(model: tf.keras.Model) -> None:
    """Raises ``UsageError`` if the loss takes integer labels; those of ``progressive_dataset`` are vectors."""
    loss = getattr(model, "loss", None)
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if "sparse" in name.lower():
        raise UsageError(
            f"The loss is {name}, which takes integer labels, but mixed labels are vectors. Compile the model with "
            "the loss categorical_crossentropy."
        )
