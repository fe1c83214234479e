"""EfficientNetV2 and V1 with the interface of ``tf.keras.applications`` and additional arguments.

The arguments, their order and defaults, the checks and the error types are those of Keras 2.15
(``keras/src/applications/efficientnet_v2.py`` and ``efficientnet.py``). So are the networks: they consist of Keras'
own layers with Keras' names, order and settings. In addition, these functions accept any image size, fixed or None,
with and without a top. The three variants that Keras does not have also have no ``"imagenet"`` weights. The default is
``"imagenet21k-ft1k"`` for V2-XL, ``"noisy-student"`` for L2, and None for B8. ``EfficientNetB3`` is the network of
Keras and of all published weights. The B3 of the reference code has other widths, because it rounds them differently.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import tensorflow as tf
from absl import logging

from effnetv2_keras.architecture import keras_names, specs, variants
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import Activation, Pooling, endpoints
from effnetv2_keras.models.finetuning import set_trainable
from effnetv2_keras.models.flat_networks import build_flat
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.weights import load_weights, registry

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    _Arguments = ParamSpec("_Arguments")

_DOCUMENTATION = """\
Builds {title} (arXiv {paper}) with pretrained or random initial weights.

The model maps images, float32 or uint8 ``[N, H, W, C]`` with pixels 0..255, to class probabilities, float32
``[N, classes]``. The best image size is {size} px. Interface, defaults and errors are those of
``tf.keras.applications.{title}`` if Keras has that function. So are the layers: Keras' own, with the same names,
classes, settings, order and weights.

Args:
    include_top: whether the model ends with pooling, dropout and the classifier.
    weights: {weights}; ``"timm:NAME"`` or ``"hf:OWNER/REPOSITORY"`` for the
        Hugging Face hub; a file or folder that ``load_weights`` reads; or None for random initial weights. The default
        is {default}.
    input_tensor: Keras tensor to use as the images: a ``tf.keras.Input``, or the output of layers or of another model.
        ``input_shape`` is then ignored.
    input_shape: height, width and channels, or channels first if that is Keras' image format; height and width may be
        None. The default is ({size}, {size}, 3) with a top and (None, None, 3) without.
    pooling: without a top: ``"avg"`` or ``"max"`` for outputs ``[N, features]``; None for ``[N, H / 32, W / 32,
        features]``. Ignored with a top.
    classes: width of the classifier. For published weights it must be that of the weights: 1000, or 21843 for
        ``"imagenet21k"``.
    classifier_activation: ``"softmax"``, or None for logits; with random initial weights, any activation or function.
    include_preprocessing: whether the model normalizes pixels. If False, pass the result of ``preprocess_input``:
        {normalization} for three channels, ``(pixel - 128) / 128`` for any other number.
    drop_path_rate: stochastic depth, in [0, 1): block i of n is skipped in training with probability
        ``drop_path_rate * i / n``. As in Keras, V2 counts n before depth scaling. V1 also accepts the name
        ``drop_connect_rate``.
    dropout_rate: dropout rate before the classifier, in [0, 1); None for that of Keras, {dropout}. The reference code
        has {own_dropout}.
    bn_momentum: weight of the old value in BatchNorm's moving averages, in [0, 1).
    bn_epsilon: constant added to BatchNorm's variance, above 0.
    activation: the name of an activation in ``tf.keras.activations``.
    dtype: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``; None for Keras' global policy.
    name: name of the model; None for ``{model_name!r}``. If ``input_tensor`` is computed by another EfficientNet, it is
        also the prefix of the layers' names, which would occur twice otherwise.
    features_only: whether the model returns a list of feature maps, at strides 2, 4, 8, 16 and 32, instead of one
        output. ``include_top`` and ``classes`` are then ignored.
    trainable_from: first trainable layer, such as ``"block_5"``, ``"block4b"`` or ``"block4b_expand_conv"``; layers
        before it are frozen. See ``set_trainable``.
    trainable_layers: alternative to ``trainable_from``: a regular expression for the names of the trainable layers.
    freeze_bn: whether to freeze every BatchNorm and its moving averages, also in trainable layers.
    cache_dir: folder of published weights; None for ``$EFFNETV2_KERAS_CACHE``, or ``~/.cache/effnetv2_keras`` if it is
        not set.

Returns:
    A functional ``tf.keras.Model``.

Raises:
    ValueError: if an argument is unknown, out of range, or does not fit the weights.
    TypeError: if ``weights`` is not a string, a path or None.
"""


def preprocess_input(x: Any, variant: str) -> Any:
    """Returns normalized pixels for a model that was built with ``include_preprocessing=False``.

    Args:
        x: pixels 0..255, ``[..., H, W, C]``, a tensor or an array of any numeric dtype; it is not modified. If Keras'
            image format is ``channels_first``: ``[..., C, H, W]``.
        variant: a name in ``variants.MODELS``, such as ``"efficientnetv2-s"``.

    Returns:
        The normalized pixels, float32: a tensor if ``x`` is a tensor, otherwise an array. For V1 and V2-B0 to B3:
        ``(x / 255 - mean) / deviation`` with ImageNet's statistics per channel. For the other variants, and for images
        that do not have three channels: ``(x - 128) / 128``. Both rules are those of the reference code.

    Raises:
        UsageError: if the variant is unknown (the message suggests the nearest one), ``x`` has fewer than three
            dimensions.
    """
    spec = variants.get_spec(variant)
    axis = -3 if tf.keras.backend.image_data_format() == "channels_first" else -1
    if IS_KERAS_3 and isinstance(x, tf.keras.KerasTensor):
        pixels = tf.keras.ops.cast(x, "float32")
    else:
        pixels = tf.cast(x, tf.float32) if tf.is_tensor(x) else np.asarray(x, np.float32)
    if len(pixels.shape) < 3:
        raise UsageError(
            f"x has shape {tuple(pixels.shape)}, but must have at least three dimensions: height, width and channels. "
            "Pass images [..., height, width, channels]."
        )
    scale, offset = specs.pixel_rescaling(_for_channels(spec, pixels.shape[axis]).normalization)
    if pixels.shape[axis] != 3:  # all channels alike
        scale, offset = scale[:1], offset[:1]
    shape = (-1, 1, 1) if axis == -3 else (-1,)
    return pixels * np.asarray(scale, np.float32).reshape(shape) + np.asarray(offset, np.float32).reshape(shape)


def _for_channels(spec: specs.ModelSpec, channels: int | None) -> specs.ModelSpec:
    """Returns the variant, with centered normalization if images do not have the 3 channels of ImageNet's statistics.

    Keras does the same.
    """
    return spec if channels == 3 else dataclasses.replace(spec, normalization="centered")


def _efficientnet(
    variant: str,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: tf.Tensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: Pooling | None = None,
    classes: int = 1000,
    classifier_activation: Activation | None = "softmax",
    include_preprocessing: bool = True,
    *,
    drop_path_rate: float = 0.2,
    dropout_rate: float | None = None,
    bn_momentum: float = 0.9,
    bn_epsilon: float = 1e-3,
    activation: str = "silu",
    dtype: str | None = None,
    name: str | None = None,
    features_only: bool = False,
    trainable_from: str | None = None,
    trainable_layers: str | None = None,
    freeze_bn: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tf.keras.Model:
    """Builds a variant; the public functions have the same arguments except the first one."""
    spec = variants.MODELS[variant]
    top = include_top and not features_only
    size = spec.eval_size if top else None
    first = tf.keras.backend.image_data_format() == "channels_first"
    shape: Any = tuple(input_shape or ((3, size, size) if first else (size, size, 3)))
    given = shape if input_tensor is None else tuple(getattr(input_tensor, "shape", (None, *shape)))[1:]
    channels = int(given[0 if first else -1] or 0) if given else 0  # 0 is refused below
    if features_only and pooling:
        raise UsageError(f"pooling is {pooling!r}, but features_only=True returns feature maps. Set only one of them.")
    path = _find_weights(weights, variant, classes if top else None, classifier_activation, channels, cache_dir)
    model = build_flat(
        _for_channels(spec, channels),
        num_classes=classes if top else None,
        input_shape=shape,
        input_tensor=input_tensor,
        pooling=None if top else pooling,
        drop_path_rate=drop_path_rate,
        dropout_rate=dropout_rate,
        bn_momentum=bn_momentum,
        bn_epsilon=bn_epsilon,
        activation=activation,
        include_preprocessing=include_preprocessing,
        published=weights == "imagenet",
        dtype=dtype,
        classifier_activation=classifier_activation,
        name=name,
    )
    if path is not None:  # load into the network only, not into the layers that compute input_tensor
        load_weights(model if input_tensor is None else tf.keras.Model(input_tensor, model.output), path)
    if features_only:
        model = tf.keras.Model(model.input, list(endpoints(model).values()), name=model.name)
    set_trainable(model, trainable_from=trainable_from, trainable_layers=trainable_layers, freeze_bn=freeze_bn)
    return model


def _find_weights(
    weights: str | os.PathLike[str] | None,
    variant: str,
    classes: int | None,
    activation: Activation | None,
    channels: int,
    cache_dir: str | os.PathLike[str] | None,
) -> str | os.PathLike[str] | None:
    """Returns the path of the weights, and downloads published ones; ``classes`` is None without a top.

    It is called before the model is built, so that weights that are missing or do not fit are reported early.
    """
    end = tf.keras.activations.get(activation) if classes is not None else None  # raises for unknown names
    if weights is None:
        return None
    path, named = os.path.expanduser(os.fspath(weights)), registry.is_name(weights)
    if not named and not any(tf.io.gfile.exists(path + suffix) for suffix in ("", ".index")):
        raise UsageError(
            f"weights is {os.fspath(weights)!r}, but there is no such file. Use one of {registry.FORMS}, the "
            "path of a file, or None for random initial weights."
        )
    count = registry.class_count(str(weights)) if named else None
    if None not in (classes, count) and classes != count:
        raise UsageError(
            f"classes is {classes}, but the weights {weights!r} have {count} classes. Pass that "
            "number, or pass include_top=False and add your own classifier."
        )
    if named and channels != 3:
        raise UsageError(
            f"The images have {channels} channels, but the weights {weights!r} are for 3 (RGB). Pass images with 3 "
            "channels, or weights=None and call load_weights, which adapts the weights."
        )
    if classes is not None and end not in (tf.keras.activations.softmax, tf.keras.activations.linear):
        raise UsageError(
            f"classifier_activation is {activation!r}, but with weights it must be 'softmax', or None for logits."
        )
    if named:
        return registry.fetch(str(weights), variant, with_top=classes is not None, cache_dir=cache_dir)
    return weights


def _published(
    network: Callable[Concatenate[str, _Arguments], tf.keras.Model], title: str, variant: str
) -> Callable[_Arguments, tf.keras.Model]:
    """Returns the public function of one variant, with its own name and documentation."""
    spec = variants.MODELS[variant]
    v1 = "v2" not in variant
    names = [name for of, name in registry.PUBLISHED if of == variant]
    weights = next((name for name in names if registry.NAMES[name] == 1000), None)
    # As in Keras, include_preprocessing of V1 is not positional: partial() makes arguments bound by name keyword-only.
    defaults: Any = {"include_preprocessing": True, "bn_momentum": 0.99} if v1 else {}
    bound = functools.partial(network, variant, **defaults)

    @functools.wraps(bound, assigned=())
    def application(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> tf.keras.Model:
        if v1 and "drop_connect_rate" in kwargs:  # as V1 of Keras 2
            kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate"))
        if len(args) < 2 and "weights" not in kwargs:
            kwargs["weights"] = weights
            if weights is None:
                logging.warning(
                    "%s has random initial weights, because none are published as 'imagenet'. Pass timm:NAME, a path, "
                    "or weights=None to hide this warning.",
                    title,
                )
        return bound(*args, **kwargs)

    signature = inspect.signature(bound)
    parameters = {**signature.parameters, "weights": signature.parameters["weights"].replace(default=weights)}
    application.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    application.__name__ = application.__qualname__ = title
    application.__doc__ = _DOCUMENTATION.format(
        title=title,
        model_name=keras_names.model_name(spec),
        paper="1905.11946" if v1 else "2104.00298",
        size=spec.eval_size,
        dropout=keras_names.dropout_rate(spec),
        own_dropout=spec.dropout_rate,
        weights=" or ".join(f'``"{name}"``' for name in names) or "no name, because none are published",
        default=f'``"{weights}"``' if weights else "None",
        normalization={"centered": "``(pixel - 128) / 128``", "imagenet": "ImageNet's mean and standard deviation"}[
            spec.normalization
        ],
    )
    return application


EfficientNetV2B0 = _published(_efficientnet, "EfficientNetV2B0", "efficientnetv2-b0")
EfficientNetV2B1 = _published(_efficientnet, "EfficientNetV2B1", "efficientnetv2-b1")
EfficientNetV2B2 = _published(_efficientnet, "EfficientNetV2B2", "efficientnetv2-b2")
EfficientNetV2B3 = _published(_efficientnet, "EfficientNetV2B3", "efficientnetv2-b3")
EfficientNetV2S = _published(_efficientnet, "EfficientNetV2S", "efficientnetv2-s")
EfficientNetV2M = _published(_efficientnet, "EfficientNetV2M", "efficientnetv2-m")
EfficientNetV2L = _published(_efficientnet, "EfficientNetV2L", "efficientnetv2-l")
EfficientNetV2XL = _published(_efficientnet, "EfficientNetV2XL", "efficientnetv2-xl")

EfficientNetB0 = _published(_efficientnet, "EfficientNetB0", "efficientnet-b0")
EfficientNetB1 = _published(_efficientnet, "EfficientNetB1", "efficientnet-b1")
EfficientNetB2 = _published(_efficientnet, "EfficientNetB2", "efficientnet-b2")
EfficientNetB3 = _published(_efficientnet, "EfficientNetB3", "efficientnet-b3-keras")
EfficientNetB4 = _published(_efficientnet, "EfficientNetB4", "efficientnet-b4")
EfficientNetB5 = _published(_efficientnet, "EfficientNetB5", "efficientnet-b5")
EfficientNetB6 = _published(_efficientnet, "EfficientNetB6", "efficientnet-b6")
EfficientNetB7 = _published(_efficientnet, "EfficientNetB7", "efficientnet-b7")
EfficientNetB8 = _published(_efficientnet, "EfficientNetB8", "efficientnet-b8")
EfficientNetL2 = _published(_efficientnet, "EfficientNetL2", "efficientnet-l2")
