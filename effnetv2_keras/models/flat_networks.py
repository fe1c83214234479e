"""Builds the variants from Keras' own layers, as ``tf.keras.applications`` does."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from effnetv2_keras.architecture import keras_names, specs
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import check_settings, sources_of
from effnetv2_keras.models.flat import Activation, FlatSettings, Pixels, Top, build_flat_model


def build_flat(
    spec: specs.ModelSpec,
    *,
    num_classes: int | None,
    input_shape: tuple[int | None, ...],
    input_tensor: Any = None,
    pooling: Any = None,
    drop_path_rate: float = 0.2,
    dropout_rate: float | None = None,
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "silu",
    include_preprocessing: bool = True,
    published: bool = False,
    dtype: str | None = None,
    classifier_activation: Activation = None,
    name: str | None = None,
) -> tf.keras.Model:
    """Returns a network of Keras' own layers with random initial weights.

    Args:
        spec: the network.
        num_classes: width of the classifier, at least 1; None for no top.
        input_shape: shape of the images without the batch: height, width and channels, or channels first if that is
            Keras' image format. Height and width may be None.
        input_tensor: Keras tensor to use instead of a new input of ``input_shape``.
        pooling: without a top, ``"avg"``, ``"max"`` or None.
        drop_path_rate: see ``keras_names.drop_rates``.
        dropout_rate: dropout rate before the classifier, in [0, 1); None for that of Keras.
        bn_momentum: BatchNorm momentum, in [0, 1).
        bn_epsilon: BatchNorm epsilon, above 0.
        activation: the name of an activation in ``tf.keras.activations``.
        include_preprocessing: whether the input is pixels 0..255, which the model normalizes.
        published: whether the V1 network has the additional layer that Keras' ``"imagenet"`` weights need.
        dtype: one of ``factory.DTYPES``; None for Keras' global policy.
        classifier_activation: activation of the classifier, or None for logits.
        name: name of the model; None for that of Keras. It is also the prefix of the layers' names if the layers that
            compute ``input_tensor`` have the same names.

    Raises:
        ValueError: if a setting is unknown or out of range, or layers have the names of layers of ``input_tensor``.
    """
    expanded = specs.expand(spec)
    rates = keras_names.drop_rates(spec, expanded, drop_path_rate)
    check_settings(1.0, bn_momentum, bn_epsilon, activation, dtype, num_classes is not None, num_classes or 1, pooling)
    images, sources = _images(input_shape, input_tensor)
    settings = FlatSettings(
        style=keras_names.style_of(spec.name),
        drop_rates=rates,
        pixels=_pixels(spec, published) if include_preprocessing else None,
        bn_momentum=bn_momentum,
        bn_epsilon=bn_epsilon,
        activation=activation,
        dtype=dtype,
        prefix=_prefix(sources, input_tensor, name),
    )
    rate = keras_names.dropout_rate(spec) if dropout_rate is None else dropout_rate
    top = Top(num_classes, rate, classifier_activation, pooling)
    return build_flat_model(expanded, images, sources, settings, top, name=name or keras_names.model_name(spec))


def _images(shape: tuple[int | None, ...], tensor: Any) -> tuple[Any, Any]:
    """Returns the Keras tensor of the images and the inputs that it is computed from."""
    sources = None if tensor is None else sources_of(tensor)
    shape = tuple(shape) if tensor is None else tuple(tensor.shape[1:])
    first = tf.keras.backend.image_data_format() == "channels_first"
    layout = "(channels, height, width)" if first else "(height, width, channels)"
    known = len(shape) == 3 and shape[0 if first else 2]
    if not known or any(size is not None and size < 1 for size in shape):
        raise UsageError(f"input_shape is {shape}, but must be {layout}; height and width may be None.")
    if first and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        raise UsageError(
            f"input_shape is {shape}, but Keras' image format is channels_first, so it must be {layout}. Reorder the "
            "shape, or call tf.keras.backend.set_image_data_format('channels_last')."
        )
    images = tf.keras.Input(shape) if tensor is None else tensor
    return images, images if sources is None else sources


def _pixels(spec: specs.ModelSpec, published: bool) -> Pixels:
    adaptable = keras_names.style_of(spec.name).is_v1
    return Pixels(*specs.PIXEL_STATISTICS[spec.normalization], adaptable=adaptable, published=adaptable and published)


def _prefix(sources: Any, tensor: Any, name: str | None) -> str:
    """Returns the prefix of the layers' names: empty, unless layers before the network have the same names."""
    if tensor is None:
        return ""
    before = [layer.name for layer in tf.keras.Model(sources, tensor).layers]
    if keras_names.prefix_of(before) is None:
        return ""
    if name is None:
        raise UsageError(
            "input_tensor is computed by layers that have the names of this network's layers, such as "
            f"{next(filter(keras_names.is_of_network, before))!r}. Pass name=, which is then the prefix of the names."
        )
    return f"{name}_"
