"""Builds a Keras model from a ``ModelSpec``, and returns its layers and feature maps by their role."""

from __future__ import annotations

import dataclasses
import numbers
import re
from typing import Any, Callable, Literal, Union

import tensorflow as tf

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.models import blocks, layers
from effnetv2_keras.models.flat_layers import flat_endpoints, is_flat
from effnetv2_keras.models.initializers import ClassifierInit, classifier_initializer
from effnetv2_keras.models.keras_compat import require_channels_last, require_tensorflow

Pooling = Literal["avg", "max"]

DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
"""The dtype policies that ``build_model`` accepts."""

Activation = Union[str, Callable[[tf.Tensor], tf.Tensor]]

_POOLING = {"avg": tf.keras.layers.GlobalAveragePooling2D, "max": tf.keras.layers.GlobalMaxPooling2D}
_ROLES = re.compile(r"image|preprocessing|stem|block_\d+|head|pool|dropout|classifier")


def build_model(
    spec_or_name: specs.ModelSpec | str,
    *,
    num_classes: int = 1000,
    include_top: bool = True,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    input_tensor: tf.Tensor | None = None,
    pooling: Pooling | None = None,
    survival_prob: float = 0.8,
    dropout_rate: float | None = None,
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "silu",
    include_preprocessing: bool = True,
    dtype: str | None = None,
    classifier_activation: Activation | None = None,
    classifier_init: ClassifierInit = "small",
    name: str | None = None,
) -> tf.keras.Model:
    """Returns a network with random initial weights.

    The layers are ``image``, ``preprocessing`` (if the model includes it), ``stem``, ``block_0``, ``block_1``, ...,
    ``head``, ``pool``, ``dropout`` and ``classifier``. If ``name`` is set, it prefixes their names, as in
    ``left_stem``, so that models of different names can be parts of one model. ``layers_by_role`` finds the layers
    with any prefix.

    Args:
        spec_or_name: a variant, or the name of one in ``variants.MODELS``.
        num_classes: width of the classifier, at least 1; ignored without a top.
        include_top: whether the model ends with pooling, dropout and the classifier.
        input_shape: height, width and channels of the images. If height or width is None, any size is accepted.
        input_tensor: Keras tensor ``[N, H, W, C]`` to use instead of a new input of ``input_shape``: a
            ``tf.keras.Input``, or the output of layers or of another model. The model then starts at the input from
            which that tensor is computed.
        pooling: without a top, how the feature map is pooled into a vector; None to return the feature map.
        survival_prob: probability that the deepest block survives stochastic depth, in (0, 1].
        dropout_rate: dropout rate before the classifier, in [0, 1); None for that of the variant.
        bn_momentum: BatchNorm momentum, in [0, 1).
        bn_epsilon: BatchNorm epsilon, above 0.
        activation: the name of an activation in ``tf.keras.activations``.
        include_preprocessing: True if the input is pixels 0..255, uint8 or float, and the model normalizes them; False
            if you normalize them by ``ModelSpec.normalization``.
        dtype: one of ``DTYPES``; None for Keras' global policy.
        classifier_activation: activation of the classifier, such as ``"softmax"``, or a function; None for logits.
        classifier_init: range of the classifier's initial kernel: ``"small"`` starts near chance for any number of
            classes, ``"reference"`` is that of the reference code; see ``initializers.classifier_initializer``.
        name: name of the model and prefix of its layers; None for the name of the variant and no prefix.

    Returns:
        A functional model. Pooled features, logits and probabilities are float32 with every dtype policy.

    Raises:
        ValueError: if a setting is unknown or out of range, the backend of Keras is not TensorFlow, or its image format
            is not ``channels_last``.
    """
    require_tensorflow()
    require_channels_last()
    spec = variants.get_spec(spec_or_name) if isinstance(spec_or_name, str) else spec_or_name
    check_settings(survival_prob, bn_momentum, bn_epsilon, activation, dtype, include_top, num_classes, pooling)
    prefix = f"{name}_" if name else ""
    conv = {"activation": activation, "bn_momentum": bn_momentum, "bn_epsilon": bn_epsilon, "dtype": dtype}
    sources, x = _images(spec, input_shape, input_tensor, include_preprocessing, prefix)
    x = _features(x, specs.expand(spec), survival_prob, prefix, conv)
    if include_top or pooling:
        x = _POOLING[pooling or "avg"](dtype="float32", name=f"{prefix}pool")(x)
    if include_top:
        kernel = classifier_initializer(num_classes, classifier_init)
        x = _classification(x, spec, num_classes, dropout_rate, classifier_activation, kernel, prefix)
    return tf.keras.Model(sources, x, name=name or spec.name)


def layers_by_role(model: tf.keras.Model) -> dict[str, tf.keras.layers.Layer]:
    """Returns a network's layers by their names without prefix: ``"stem"``, ``"block_0"``, ..., ``"classifier"``.

    Layers that compute the network's ``input_tensor`` are not included.

    Raises:
        ValueError: if the model is not from ``build_model``.
    """
    convolutions = [layer.name for layer in model.layers if isinstance(layer, layers.ConvNorm)]
    stems = [name for name in convolutions if name.endswith("stem")]
    if not stems:
        raise ValueError(f"Model {model.name!r} has no layer 'stem'. Pass a model of build_model.")
    prefix = stems[-1][: -len("stem")]  # the stems of networks before this one come earlier
    roles = {layer.name[len(prefix) :]: layer for layer in model.layers if layer.name.startswith(prefix)}
    return {role: layer for role, layer in roles.items() if _ROLES.fullmatch(role)}


def endpoints(model: tf.keras.Model) -> dict[int, tf.Tensor]:
    """Returns the last feature map at each stride, for detection or segmentation heads.

    ``tf.keras.Model(model.input, list(endpoints(model).values()))`` computes the feature maps.

    Returns:
        Symbolic outputs by stride in pixels: 2, 4, 8, 16 and 32 for the variants of the paper.

    Raises:
        ValueError: if the model is neither from ``build_model`` nor an EfficientNet of Keras' layers.
    """
    if is_flat(model):
        return flat_endpoints(model)
    outputs, stride = {}, 1
    for role, layer in layers_by_role(model).items():
        if role == "stem" or role.startswith("block_"):
            stride *= layer.get_config()["stride"]
            outputs[stride] = layer.output
    return outputs


def _images(
    spec: specs.ModelSpec,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: tf.Tensor | None,
    include_preprocessing: bool,
    prefix: str,
) -> tuple[tf.Tensor | list[tf.Tensor], tf.Tensor]:
    """Returns the inputs of the model, and the tensor that is the input of the stem."""
    sources = None if input_tensor is None else sources_of(input_tensor)
    shape = input_shape if input_tensor is None else tuple(input_tensor.shape[1:])
    if len(shape) != 3 or not shape[2] or any(size is not None and size < 1 for size in shape):
        raise ValueError(
            f"input_shape is {shape}, but must be (height, width, channels); height and width may be None."
        )
    if include_preprocessing and spec.normalization in ("imagenet", "caffe") and shape[2] != 3:
        raise ValueError(
            f"input_shape has {shape[2]} channels, but the preprocessing of {spec.name!r} needs 3 (RGB). "
            "Pass include_preprocessing=False and normalize the input yourself."
        )
    images = tf.keras.Input(shape, name=f"{prefix}image") if input_tensor is None else input_tensor
    sources = images if sources is None else sources
    return sources, preprocessing_layer(spec.normalization, prefix)(images) if include_preprocessing else images


def sources_of(tensor: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Returns the inputs that a Keras tensor is computed from; a single input is returned without a list."""
    sources = tf.keras.utils.get_source_inputs(tensor)
    if sources is tensor:
        raise ValueError(
            f"input_tensor is of type {type(tensor).__name__}, but must be a Keras tensor. Pass a tf.keras.Input, or "
            "the output of a layer or model."
        )
    return sources[0] if len(sources) == 1 else sources


def preprocessing_layer(normalization: specs.Normalization, prefix: str = "") -> tf.keras.layers.Layer:
    """Returns the layer that normalizes pixels 0..255; if all channels have the same scale, it accepts any number."""
    scale, offset = specs.pixel_rescaling(normalization)
    alike = len({*zip(scale, offset)}) == 1
    return tf.keras.layers.Rescaling(
        scale[0] if alike else list(scale),
        offset[0] if alike else list(offset),
        dtype="float32",
        name=f"{prefix}preprocessing",
    )


@tf.autograph.experimental.do_not_convert  # the layers have no control flow over tensors, and converting takes a second
def _features(
    images: tf.Tensor, expanded: specs.ExpandedSpec, survival_prob: float, prefix: str, conv: dict[str, Any]
) -> tf.Tensor:
    """Applies stem, blocks and head; maps ``[N, H, W, C]`` to ``[N, H / 32, W / 32, head_filters]``."""
    x = layers.ConvNorm(expanded.stem_filters, 3, stride=2, name=f"{prefix}stem", **conv)(images)
    drop_rates = specs.drop_path_rates(len(expanded.blocks), 1 - survival_prob)
    for index, (block, drop_rate) in enumerate(zip(expanded.blocks, drop_rates)):
        shape = {key: value for key, value in dataclasses.asdict(block).items() if key not in ("kind", "repeats")}
        x = blocks.BLOCKS[block.kind](**shape, drop_path_rate=drop_rate, name=f"{prefix}block_{index}", **conv)(x)
    return layers.ConvNorm(expanded.head_filters, name=f"{prefix}head", **conv)(x)


def _classification(
    features: tf.Tensor,
    spec: specs.ModelSpec,
    num_classes: int,
    dropout_rate: float | None,
    activation: Activation | None,
    kernel: tf.keras.initializers.Initializer,
    prefix: str,
) -> tf.Tensor:
    """Applies dropout and the classifier; maps ``[N, features]`` to ``[N, num_classes]``."""
    rate = spec.dropout_rate if dropout_rate is None else dropout_rate
    x = layers.HeadDropout(rate, dtype="float32", name=f"{prefix}dropout")(features)
    return tf.keras.layers.Dense(
        num_classes,
        activation=activation,
        kernel_initializer=kernel,
        dtype="float32",
        name=f"{prefix}classifier",
    )(x)


def check_settings(
    survival_prob: float,
    bn_momentum: float,
    bn_epsilon: float,
    activation: str,
    dtype: str | None,
    include_top: bool,
    num_classes: int,
    pooling: Pooling | None,
) -> None:
    """Raises ``ValueError`` if a setting of ``build_model`` is unknown or out of range."""
    whole = isinstance(num_classes, numbers.Integral)
    for ok, message in (
        (0 < survival_prob <= 1, f"survival_prob is {survival_prob}, but must be in (0, 1]; 1 keeps every block."),
        (0 <= bn_momentum < 1, f"bn_momentum is {bn_momentum}, but must be in [0, 1)."),
        (bn_epsilon > 0, f"bn_epsilon is {bn_epsilon}, but must be positive."),
        (dtype in (None, *DTYPES), f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}, or None."),
        (
            pooling in (None, *_POOLING),
            f"pooling is {pooling!r}; use one of {', '.join(_POOLING)}, or None for the feature map.",
        ),
        (
            not (include_top and pooling),
            f"pooling is {pooling!r}, but is only for models without a top. Pass include_top=False, or no pooling.",
        ),
        (
            not include_top or (whole and num_classes >= 1),
            f"num_classes is {num_classes!r}, but must be a whole number of at least 1.",
        ),
    ):
        if not ok:
            raise ValueError(message)
    try:
        tf.keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(f"activation is {activation!r}; use the name of one in tf.keras.activations.") from error
