"""Converts trained networks into models of Keras' own layers, which load without this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.architecture import keras_names, specs
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import layers
from effnetv2_keras.models.blocks import Block
from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.flat import FlatSettings, Pixels, Top, build_flat_model
from effnetv2_keras.models.flat_layers import flat_layers, flat_variable_names, is_flat
from effnetv2_keras.models.naming import is_nested
from effnetv2_keras.models.normalization import BatchNorm
from effnetv2_keras.weights import layout
from effnetv2_keras.weights.assign import weight_names
from effnetv2_keras.weights.loading import load_weights


def to_keras_layers(network: tf.keras.Model) -> tf.keras.Model:
    """Returns the same network, made of Keras' own layers with the names of ``tf.keras.applications``.

    The result computes the same and has the same weights, name, settings and trainable layers. Saved to a ``.keras``
    file, it loads with ``tf.keras.models.load_model`` where this package is not installed. Its dropout and stochastic
    depth are Keras', which draw their own random numbers.

    Args:
        network: a model of ``build_model``, such as ``load_trained("run").model``; or a ``keras:NAME`` network of a
            run, whose BatchNorm and dropout layers are replaced by Keras'.

    Returns:
        A functional model. It starts at the images, also if the network was built with an ``input_tensor``. V1's
        networks have Keras' padding layers only if the image size is known, because Keras pads unknown odd sizes in
        another way.

    Raises:
        UsageError: if the model has a layer of this package that Keras does not have.
    """
    if is_flat(network):
        return _replaced(network)
    try:
        roles = layers_by_role(network)
    except ValueError:
        return _replaced(network)
    flat = _flat(network, roles)
    load_weights(flat, network)
    _copy_trainable(network, flat)
    return flat


def _flat(network: tf.keras.Model, roles: dict[str, tf.keras.layers.Layer]) -> tf.keras.Model:
    """Returns the network of Keras' layers that corresponds to a model of ``build_model``, with random weights."""
    stem, head = roles["stem"], roles.get("head")
    if head is None:
        raise UsageError(f"{network.name!r} returns feature maps and has no head. Pass a whole model of build_model.")
    blocks: list[Block] = [layer for role, layer in roles.items() if role.startswith("block_")]
    shapes = dict(zip(weight_names(network), (tuple(weight.shape) for weight in network.weights)))
    variant = layout.variant_of(shapes)
    style = keras_names.style_of(variant)
    pixels = _pixels(roles.get("preprocessing"), style)
    first = roles.get("preprocessing", stem)
    image = tf.keras.Input(first.input.shape[1:])
    settings = FlatSettings(
        style=style,
        drop_rates=[block.drop_path_rate for block in blocks],
        pixels=pixels,
        bn_momentum=stem.bn_momentum,
        bn_epsilon=stem.bn_epsilon,
        activation=stem.activation,
        dtype=stem.dtype_policy,
        pads=None not in first.input.shape[1:3],
    )
    shapes_of = tuple(block.spec for block in blocks)
    expanded = specs.ExpandedSpec(stem.filters, shapes_of, keras_names.stage_ends_of(shapes_of), head.filters)
    return build_flat_model(expanded, image, image, settings, _top(roles), name=network.name)


def _top(roles: dict[str, tf.keras.layers.Layer]) -> Top:
    classifier, pool = roles.get("classifier"), roles.get("pool")
    is_max = isinstance(pool, tf.keras.layers.GlobalMaxPooling2D)
    pooling = None if pool is None else "max" if is_max else "avg"
    if classifier is None:
        return Top(pooling=pooling)
    return Top(classifier.units, roles["dropout"].rate, classifier.activation, pooling)


def _pixels(layer: tf.keras.layers.Layer | None, style: keras_names.Style) -> Pixels | None:
    """Returns the normalization of a ``preprocessing`` layer, rounded to a known one that is as good as equal."""
    if layer is None:
        return None
    scale, offset = (np.broadcast_to(np.ravel(value), 3) for value in (layer.scale, layer.offset))
    for mean, deviation in specs.PIXEL_STATISTICS.values():
        if np.allclose(scale, np.reciprocal(deviation)) and np.allclose(offset, -np.divide(mean, deviation)):
            return Pixels(mean, deviation, adaptable=style.is_v1)
    return Pixels(tuple(-offset / scale), tuple(1 / scale), adaptable=style.is_v1)


def _copy_trainable(network: tf.keras.Model, flat: tf.keras.Model) -> None:
    """Freezes the layers whose variables are frozen in the network; others stay trainable."""
    names = dict(zip((id(weight) for weight in network.weights), weight_names(network)))
    trained = {names[id(weight)] for weight in network.trainable_weights}
    own = flat_variable_names(flat)
    for _, layer in flat_layers(flat):
        if layer.trainable_weights and trained.isdisjoint(own[id(weight)] for weight in layer.weights):
            layer.trainable = False


def _replaced(model: tf.keras.Model) -> tf.keras.Model:
    """Returns a copy of any model with this package's layers replaced by those of Keras."""
    copy = _cloned(model)
    copy.set_weights(model.get_weights())
    return copy


def _cloned(model: tf.keras.Model) -> tf.keras.Model:
    def stock(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        if is_nested(layer):
            return _cloned(layer)
        replacement = _stock_layer(layer)
        if type(replacement).__module__.startswith(__name__.split(".")[0]):
            raise UsageError(
                f"Layer {layer.name!r} ({type(layer).__name__}) is of this package and has no equivalent in Keras. "
                "Pass a model of build_model, or a model of Keras' layers."
            )
        return replacement

    clone = tf.keras.models.clone_model(model, clone_function=stock)
    if clone.name == model.name:
        return clone
    return tf.keras.Model(clone.inputs, clone.outputs, name=model.name)


def _stock_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """Returns a new layer of Keras with the settings of a layer."""
    config: dict[str, Any] = layer.get_config()
    if isinstance(layer, BatchNorm):
        return tf.keras.layers.BatchNormalization.from_config(config)
    if isinstance(layer, layers.DropPath):
        return tf.keras.layers.Dropout.from_config({**config, "noise_shape": (None, 1, 1, 1)})
    if isinstance(layer, (layers.Dropout, layers.HeadDropout)):
        return tf.keras.layers.Dropout.from_config(config)
    return layer.__class__.from_config(config)
