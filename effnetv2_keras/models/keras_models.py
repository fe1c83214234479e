"""Builds the networks of ``KerasSpec``: those of ``tf.keras.applications``, and those of functions of one's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.architecture.specs import KerasSpec
from effnetv2_keras.architecture.variants import KERAS
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import scopes
from effnetv2_keras.models.factory import preprocessing_layer
from effnetv2_keras.models.keras_compat import require_keras_2, sublayers
from effnetv2_keras.models.layers import HeadDropout
from effnetv2_keras.models.naming import leaf_layers
from effnetv2_keras.models.rebuilding import NOT_REPEATED, rebuild
from effnetv2_keras.models.scopes import stochastic_scope

_DRAWS = re.compile("Random|Stateful(?!Partitioned)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial")
"""Kinds of operations that draw from a generator's state; those that are handed a seed are called ``Stateless...``."""


def build_keras_model(
    spec: KerasSpec,
    *,
    num_classes: int,
    bn_momentum: float = 0.99,
    include_preprocessing: bool = True,
    asks_normalization: bool = False,
    dtype: str = "float32",
    smallest_size: int | None = None,
) -> tf.keras.Model:
    """Builds the network with fresh weights, or those that the function gave it; see ``rebuilding.rebuild``.

    A network whose first layer is ``Rescaling`` or ``Normalization`` normalises pixels itself.

    Args:
        spec: which.
        num_classes: width of the classifier, at least 1.
        bn_momentum: BatchNorm momentum, in [0, 1).
        include_preprocessing: whether ``preprocessing`` comes before a network that does not normalise pixels itself.
        asks_normalization: whether ``spec.normalization`` is a wish and not the default.
        dtype: one of ``factory.DTYPES``.
        smallest_size: side of the smallest image that it must take, pixels; None does not try.

    Returns:
        A functional model: images ``[N, H, W, 3]`` of any size, pixels 0..255 if they are normalised in it, to float32
        logits ``[N, num_classes]``.

    Raises:
        UsageError: if there is no such network; if it is no functional model that gives logits for images of any size,
            or not for the smallest; or for a wish about the normalisation of a network that normalises pixels itself.
            Also if ``tf.keras`` is Keras 3.
    """
    require_keras_2(spec.name)
    name = spec.name[len(KERAS) :]
    function = _own_function(spec.name) if ":" in name else _application(name)
    made = function(num_classes)
    _check(made, spec.name, num_classes)
    flat = tf.keras.Model(made.inputs, made.outputs[0], name=name.rpartition(":")[2].strip("_") or "network")
    try:
        network = rebuild(flat, bn_momentum=bn_momentum, dtype=dtype)
        _check_types(network)
        _try_out(network, [32 + (side or 64) for side in made.input_shape[1:3]])
    except UsageError as error:
        raise UsageError(f"{spec.name}: {error}") from error
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        height, width = made.input_shape[1:3]
        takes = f"needs images of one size, {height} x {width} px" if height else "does not take every size of images"
        raise UsageError(
            f"{spec.name} {takes}, but that changes from stage to stage. Replace Flatten by GlobalAveragePooling2D, "
            f"and whatever else counts on the size. ({_first_line(error)})"
        ) from error
    if smallest_size is not None:
        _try_smallest(network, spec.name, smallest_size)
    if normalises_itself(network):
        _refuse_normalization(spec, include_preprocessing, asks_normalization)
        return network
    if not include_preprocessing:
        return network
    images = tf.keras.Input([None, None, 3], name="image")
    return tf.keras.Model(images, network(preprocessing_layer(spec.normalization)(images)), name=network.name)


def normalises_itself(model: tf.keras.Model) -> bool:
    """Whether the first layer is one that normalises pixels."""
    return isinstance(leaf_layers(model)[0], (tf.keras.layers.Rescaling, tf.keras.layers.Normalization))


def has_head_dropout(model: tf.keras.Model) -> bool:
    """Whether the dropout rate of a stage changes anything."""
    return any(isinstance(layer, HeadDropout) for layer in sublayers(model))


def _application(name: str) -> Callable[[int], Any]:
    known = dict(inspect.getmembers(tf.keras.applications, inspect.isfunction))
    if name not in known:
        lower = {other.lower(): other for other in known}
        near = lower[difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.0)[0]]
        raise UsageError(
            f"tf.keras.applications has no model {name!r}; did you mean {KERAS}{near}? It has {', '.join(known)}. A "
            f"function of your own is {KERAS}package.module:function."
        )
    return lambda num_classes: known[name](weights=None, classes=num_classes, classifier_activation=None)


def _own_function(name: str) -> Callable[[int], Any]:
    _, module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"{name}: the module {module_name!r} cannot be imported ({error}). Name it as in an import statement, and "
            "put its folder on PYTHONPATH."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"{name}: there is no function {function_name!r} in {module.__file__}.")
    try:
        inspect.signature(function).bind(num_classes=2)
    except TypeError as error:
        raise UsageError(
            f"{name}: {function_name}{inspect.signature(function)} cannot be called as {function_name}(num_classes=N)."
        ) from error
    return lambda num_classes: function(num_classes=num_classes)


def _check(model: Any, name: str, num_classes: int) -> None:
    """Refuses what is no network of this kind."""
    if not isinstance(model, tf.keras.Model) or not model.inputs or not model.outputs:
        raise UsageError(
            f"{name} gave {type(model).__name__}, which is no functional model; return tf.keras.Model(inputs, outputs)."
        )
    shapes = [tuple(tensor.shape) for tensor in model.inputs], [tuple(tensor.shape) for tensor in model.outputs]
    images, logits = shapes
    if len(images) != 1 or len(images[0]) != 4 or images[0][3] != 3:
        raise UsageError(f"{name} takes {images}; one input of images is allowed, (None, None, None, 3).")
    if logits != [(None, num_classes)]:
        raise UsageError(f"{name} gives {logits}; it must give one logit for each class, (None, {num_classes}).")
    _check_logits(leaf_layers(model)[-1], name)
    frozen = [layer.name for layer in leaf_layers(model) if layer.weights and not layer.trainable]
    for wrong, message in (
        (not model.trainable_weights, "has nothing to train"),
        (frozen, f"has frozen layers ({', '.join(frozen[:3])}); set train.trainable_from or train.trainable_layers"),
        (model.losses, "has regularizers or other losses of its own; leave them out and set train.weight_decay"),
        (getattr(model, "optimizer", None), "is compiled; return it as it is before compile"),
    ):
        if wrong:
            raise UsageError(f"The model of {name} {message}.")


def _check_logits(last: tf.keras.layers.Layer, name: str) -> None:
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    words = [word for word in ("softmax", "sigmoid") if word in f"{last.name} {type(last).__name__}".lower()]
    if activation != "linear" or words:
        ending = words[0] if activation == "linear" else activation
        raise UsageError(
            f"{name} ends in {ending} (layer {last.name!r}), but the loss takes logits; leave that activation out."
        )


def _check_types(model: tf.keras.Model) -> None:
    """Refuses weights that have no moving average; those of ``Normalization``, an integer, are no weights any more."""
    other = [f"{weight.name} {weight.dtype.name}" for weight in model.weights if weight.dtype != tf.float32]
    if other:
        raise UsageError(
            f"Weights must be float32, and are not: {', '.join(other[:3])}. precision.policy sets the type of what is "
            "computed."
        )


def _try_smallest(model: tf.keras.Model, name: str, size: int) -> None:
    """Refuses a network for which the smallest images are too small."""
    try:
        _try_out(model, [size, size])
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise UsageError(
            f"{name} cannot take images of {size} x {size} px, which are the smallest of this run. Raise "
            f"progressive.image_size.start, and eval.isize if that is lower. ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _try_out(model: tf.keras.Model, size: Sequence[int]) -> None:
    """Traces a call in training with images of a size, pixels.

    Raises:
        UsageError: if an operation draws random numbers from a state.
        ValueError: if the model counts on another size.
    """

    def call(images: tf.Tensor) -> tf.Tensor:
        with stochastic_scope(tf.zeros([2], tf.int32)), scopes.repeat_pass(scopes.current_pass()):
            return model(images, training=True)

    function = tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec([2, *size, 3]))
    graph = function.graph.as_graph_def()
    inner = [node for called in graph.library.function for node in called.node_def]
    drawing = [node.name for node in (*graph.node, *inner) if _DRAWS.match(node.op)]
    if drawing:
        raise UsageError(f"Operation {drawing[0]!r} draws random numbers of its own, {NOT_REPEATED}")


def _refuse_normalization(spec: KerasSpec, include_preprocessing: bool, asks_normalization: bool) -> None:
    for asked, setting, leave in (
        (asks_normalization, f"model.normalization={spec.normalization}", "model.normalization=None"),
        (not include_preprocessing, "model.include_preprocessing=false", "model.include_preprocessing=true"),
    ):
        if asked:
            raise UsageError(
                f"{spec.name} normalises pixels itself, so that {setting} cannot apply to it. Use "
                f"--hparam_str={leave}."
            )
