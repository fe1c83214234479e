"""Builds the networks of a ``KerasSpec``: models of ``tf.keras.applications``, and models of your own functions."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from absl import logging

from effnetv2_keras.architecture.specs import PIXEL_STATISTICS, KerasSpec
from effnetv2_keras.architecture.variants import KERAS
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import scopes
from effnetv2_keras.models.factory import preprocessing_layer
from effnetv2_keras.models.keras_compat import (
    last_operation,
    path_of,
    require_channels_last,
    require_tensorflow,
    sublayers,
    tf_variables,
)
from effnetv2_keras.models.layers import HeadDropout
from effnetv2_keras.models.naming import leaf_layers
from effnetv2_keras.models.rebuilding import NOT_REPEATED, rebuild
from effnetv2_keras.models.scopes import stochastic_scope

_DRAWS = re.compile("Random|Stateful(?!Partitioned)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial")
"""Types of operations that draw random numbers from a state. Those that take a seed are called ``Stateless...``."""


def build_keras_model(
    spec: KerasSpec,
    *,
    num_classes: int,
    bn_momentum: float = 0.99,
    include_preprocessing: bool = True,
    asks_normalization: bool = False,
    imagenet_statistics: bool = False,
    dtype: str = "float32",
    smallest_size: int | None = None,
) -> tf.keras.Model:
    """Returns the network, rebuilt by ``rebuilding.rebuild`` so that it can be trained in stages.

    A model of ``tf.keras.applications`` has random initial weights; a model of your function keeps its weights. A
    network whose first layer is ``Rescaling`` or ``Normalization`` normalizes pixels itself.

    Args:
        spec: the network.
        num_classes: width of the classifier, at least 1.
        bn_momentum: BatchNorm momentum, in [0, 1).
        include_preprocessing: whether to add ``preprocessing`` before a network that does not normalize pixels itself.
        asks_normalization: whether ``spec.normalization`` was set by the user instead of by default.
        imagenet_statistics: whether a network that learns mean and deviation of pixels has those of ImageNet. Keras'
            EfficientNetB0 to B7 has them only with published weights.
        dtype: one of ``factory.DTYPES``.
        smallest_size: side of the smallest images that the network must accept, pixels; None to skip this check.

    Returns:
        A functional model that maps images ``[N, H, W, 3]`` of any size to float32 logits ``[N, num_classes]``. The
        images are pixels 0..255 if the model normalizes them.

    Raises:
        UsageError: if there is no such network, it is not a functional model that returns logits for images of any
            size, it cannot process the smallest images, a normalization is set for a network that normalizes pixels
            itself, the backend of Keras 3 is not TensorFlow, or the image format of Keras is not ``channels_last``.
    """
    require_tensorflow()
    require_channels_last()
    name = spec.name[len(KERAS) :]
    made = _own_function(spec.name)(num_classes) if ":" in name else application(name, num_classes)
    _check(made, spec.name, num_classes)
    if imagenet_statistics:
        _set_statistics(made)
    flat = tf.keras.Model(made.inputs[0], made.outputs[0], name=name.rpartition(":")[2].strip("_") or "network")
    try:
        network = rebuild(flat, bn_momentum=bn_momentum, dtype=dtype)
        _check_types(network)
        _try_out(network, [32 + (side or 64) for side in made.inputs[0].shape[1:3]])
    except UsageError as error:
        raise UsageError(f"{spec.name}: {error}") from error
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        height, width = made.inputs[0].shape[1:3]
        takes = f"accepts only images of {height} x {width} px" if height else "does not accept images of every size"
        raise UsageError(
            f"{spec.name} {takes}, but the image size changes from stage to stage. Replace Flatten by "
            f"GlobalAveragePooling2D, and replace other layers that depend on the size. ({_first_line(error)})"
        ) from error
    if smallest_size is not None:
        _try_smallest(network, spec.name, smallest_size)
    if normalizes_itself(network):
        _refuse_normalization(spec, include_preprocessing, asks_normalization)
        return network
    if not include_preprocessing:
        return network
    images = tf.keras.Input([None, None, 3], name="image")
    return tf.keras.Model(images, network(preprocessing_layer(spec.normalization)(images)), name=network.name)


def _set_statistics(model: tf.keras.Model) -> None:
    """Gives every ``Normalization`` that has weights, for pixels 0..1, the mean and deviation of ImageNet."""
    mean, deviation = (np.asarray(values) / 255 for values in PIXEL_STATISTICS["imagenet"])
    for layer in leaf_layers(model):
        if isinstance(layer, tf.keras.layers.Normalization) and layer.weights:
            layer.set_weights([mean, deviation**2, np.zeros([], np.int64)])
            layer.finalize_state()


def normalizes_itself(model: tf.keras.Model) -> bool:
    """Returns whether the first layer is ``Rescaling`` or ``Normalization``."""
    return isinstance(leaf_layers(model)[0], (tf.keras.layers.Rescaling, tf.keras.layers.Normalization))


def has_head_dropout(model: tf.keras.Model) -> bool:
    """Returns whether the model has a ``HeadDropout``, so that the dropout rate of a stage has an effect."""
    return any(isinstance(layer, HeadDropout) for layer in sublayers(model))


def application(name: str, num_classes: int, weights: str | None = None) -> tf.keras.Model:
    """Returns a model of ``tf.keras.applications`` that returns logits.

    Args:
        name: name of the function, such as ``"ResNet50"``.
        num_classes: width of the classifier; 1000 with weights.
        weights: None for random weights, or ``"imagenet"``, which Keras downloads.

    Raises:
        UsageError: if there is no such function; the message names the nearest.
    """
    known = dict(inspect.getmembers(tf.keras.applications, inspect.isfunction))
    if name not in known:
        lower = {other.lower(): other for other in known}
        near = lower[difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.0)[0]]
        raise UsageError(
            f"tf.keras.applications has no model {name!r}; did you mean {KERAS}{near}? Its models are "
            f"{', '.join(known)}. For your own function, give {KERAS}package.module:function."
        )
    return known[name](weights=weights, classes=num_classes, classifier_activation=None)


def _own_function(name: str) -> Callable[[int], Any]:
    _, module_name, function_name = name.split(":")
    logging.info("model.model_name is %s: importing the module %s, which runs its code.", name, module_name)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"{name}: cannot import the module {module_name!r} ({error}). Write its name as in an import statement, "
            "and add its folder to PYTHONPATH."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(
            f"{name}: there is no function {function_name!r} in {module.__file__}. Check the name, or add the function."
        )
    try:
        inspect.signature(function).bind(num_classes=2)
    except TypeError as error:
        raise UsageError(
            f"{name}: {function_name}{inspect.signature(function)} cannot be called as {function_name}(num_classes=N). "
            "Change its parameters."
        ) from error
    return lambda num_classes: function(num_classes=num_classes)


def _check(model: Any, name: str, num_classes: int) -> None:
    """Raises ``UsageError`` unless the model is a trainable functional model from RGB images to logits."""
    is_functional = isinstance(model, tf.keras.Model) and all(
        getattr(model, ends, None) for ends in ("inputs", "outputs")
    )
    if not is_functional:
        raise UsageError(
            f"{name} returned {type(model).__name__}, which is not a functional model. Return "
            "tf.keras.Model(inputs, outputs)."
        )
    shapes = [tuple(tensor.shape) for tensor in model.inputs], [tuple(tensor.shape) for tensor in model.outputs]
    images, logits = shapes
    if len(images) != 1 or len(images[0]) != 4 or images[0][3] != 3:
        raise UsageError(f"{name} has inputs {images}, but must have one input of images, (None, None, None, 3).")
    if logits != [(None, num_classes)]:
        raise UsageError(f"{name} has outputs {logits}, but must have one logit per class, (None, {num_classes}).")
    _check_logits(last_operation(model), name)
    frozen = [layer.name for layer in leaf_layers(model) if layer.weights and not layer.trainable]
    for wrong, message in (
        (not model.trainable_weights, "has no trainable weights"),
        (
            frozen,
            f"has frozen layers ({', '.join(frozen[:3])}). Make them trainable, and set train.trainable_from or "
            "train.trainable_layers",
        ),
        (model.losses, "has regularizers or other losses. Remove them and set train.weight_decay"),
        (getattr(model, "optimizer", None), "is compiled. Return it without calling compile"),
    ):
        if wrong:
            raise UsageError(f"The model of {name} {message}.")


def _check_logits(last: Any, name: str) -> None:
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    words = [word for word in ("softmax", "sigmoid") if word in f"{last.name} {type(last).__name__}".lower()]
    if activation != "linear" or words:
        ending = words[0] if activation == "linear" else activation
        raise UsageError(
            f"{name} ends with {ending} (layer {last.name!r}), but the loss needs logits. Remove that activation."
        )


def _check_types(model: tf.keras.Model) -> None:
    """Raises ``UsageError`` for weights that are not float32, because they cannot be averaged.

    ``rebuild`` has already turned the weights of ``Normalization``, one of which is an integer, into constants.
    """
    types = zip(model.weights, (variable.dtype for variable in tf_variables(model.weights)))
    other = [f"{path_of(weight)} {dtype.name}" for weight, dtype in types if dtype != tf.float32]
    if other:
        raise UsageError(
            f"Some weights are not float32: {', '.join(other[:3])}. All weights must be float32; precision.policy sets "
            "the dtype of the computation."
        )


def _try_smallest(model: tf.keras.Model, name: str, size: int) -> None:
    """Raises ``UsageError`` if the smallest images are too small for the network."""
    try:
        _try_out(model, [size, size])
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise UsageError(
            f"{name} cannot process images of {size} x {size} px, which are the smallest ones of this run. Increase "
            f"progressive.image_size.start, and eval.isize if it is smaller. ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _try_out(model: tf.keras.Model, size: Sequence[int]) -> None:
    """Traces a training call with images of a size (height, width), pixels.

    Raises:
        UsageError: if an operation draws random numbers from a state.
        ValueError: if the model needs another size.
    """

    def call(images: tf.Tensor) -> tf.Tensor:
        with stochastic_scope(tf.zeros([2], tf.int32)), scopes.repeat_pass(scopes.current_pass()):
            return model(images, training=True)

    function = tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec([2, *size, 3]))
    graph = function.graph.as_graph_def()
    inner = [node for called in graph.library.function for node in called.node_def]
    drawing = [node.name for node in (*graph.node, *inner) if _DRAWS.match(node.op)]
    if drawing:
        raise UsageError(f"Operation {drawing[0]!r} draws random numbers from its own state, {NOT_REPEATED}")
    known = {id(variable) for variable in tf_variables(model.weights)}
    counters = [variable for variable in function.graph.variables if id(variable) not in known and _is_seed(variable)]
    if counters:
        raise UsageError(f"Generator {counters[0].name!r} draws random numbers from its own state, {NOT_REPEATED}")


def _is_seed(variable: tf.Variable) -> bool:
    """Returns whether a variable looks like the state of a ``SeedGenerator`` of Keras 3: two integers."""
    return variable.shape == [2] and variable.dtype.is_integer


def _refuse_normalization(spec: KerasSpec, include_preprocessing: bool, asks_normalization: bool) -> None:
    for asked, setting, leave in (
        (asks_normalization, f"model.normalization={spec.normalization}", "model.normalization=None"),
        (not include_preprocessing, "model.include_preprocessing=false", "model.include_preprocessing=true"),
    ):
        if asked:
            raise UsageError(
                f"{setting} does not apply to {spec.name}, because that network normalizes pixels itself. Use "
                f"--hparam_str={leave}."
            )
