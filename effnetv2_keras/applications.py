"""EfficientNetV2 and V1 in the style of ``tf.keras.applications``: the same call, and more that can be set.

Arguments, their order and defaults, what is refused, and the kinds of error are those of Keras 2.15
(``keras/src/applications/efficientnet_v2.py`` and ``efficientnet.py``). These functions accept more: any image size,
known or not, with a top as without. One default differs: dropout before the classifier is the variant's own, from the
reference code, where Keras has 0.2 for all of V2. ``EfficientNetB3`` is Keras', too: the network of all published
weights, which the reference code rounds to other widths.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import Activation, Pooling, build_model, endpoints
from effnetv2_keras.models.finetuning import set_trainable
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.weights import load_weights, registry

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    _Arguments = ParamSpec("_Arguments")

_DOCUMENTATION = """\
Builds {title} (arXiv {paper}) with pretrained or fresh weights.

Takes images float32 or uint8 ``[N, H, W, C]`` of pixels 0..255, best at {size} px, and gives class probabilities
float32 ``[N, classes]``. Call, defaults and errors are those of ``tf.keras.applications.{title}``, where Keras has it.

Args:
    include_top: whether the model ends with pooling, dropout and the classifier.
    weights: ``"imagenet"``, ``"imagenet21k"``, ``"imagenet21k-ft1k"`` or ``"noisy-student"``; a file or folder that
        ``load_weights`` reads; or None for fresh weights.
    input_tensor: Keras tensor to take the images from: a ``tf.keras.Input``, or what layers or another model make of
        one. ``input_shape`` is then ignored.
    input_shape: height, width and channels; height and width may be None. None is ({size}, {size}, 3) with a top,
        (None, None, 3) without.
    pooling: without a top, ``"avg"`` or ``"max"`` gives ``[N, features]``; None gives ``[N, H / 32, W / 32,
        features]``. With a top it is ignored.
    classes: width of the classifier; for weights that go by a name it must be theirs, 1000, or 21843 for
        ``"imagenet21k"``.
    classifier_activation: ``"softmax"``, or None for logits; with fresh weights, any name or function.
    include_preprocessing: True normalises pixels in the model; False takes what ``preprocess_input`` gives:
        {normalization} of three channels, ``(pixel - 128) / 128`` of any other number.
    drop_path_rate: chance that the deepest block is skipped in training, in [0, 1).
    dropout_rate: dropout before the classifier, in [0, 1); None is the variant's, {dropout}.
    bn_momentum: weight of the old value in BatchNorm's averages, in [0, 1).
    bn_epsilon: added to BatchNorm's variance, positive.
    activation: a name that ``tf.keras.activations`` knows.
    dtype: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``; None is Keras' global policy.
    name: the model's name and the prefix of its layers, which lets several networks share a model; None names the model
        ``{variant!r}`` and its layers without prefix.
    features_only: True gives a list of feature maps in place of one output, at strides 2, 4, 8, 16 and 32;
        ``include_top`` and ``classes`` are then ignored.
    trainable_from: first layer that trains, such as ``"block_5"``; those before are frozen. See ``set_trainable``.
    trainable_layers: in place of it, a regular expression of the names of the layers that train.
    freeze_bn: True freezes every BatchNorm with its averages, also when the model trains.
    cache_dir: folder of weights that go by a name; None is ``$EFFNETV2_KERAS_CACHE`` or ``~/.cache/effnetv2_keras``.

Returns:
    A functional ``tf.keras.Model``.

Raises:
    ValueError: if an argument is unknown, out of range, or does not fit the weights.
    TypeError: if ``weights`` is no string, path or None.
"""


def preprocess_input(x: Any, variant: str) -> Any:
    """Normalises pixels for a model that was built with ``include_preprocessing=False``.

    Args:
        x: pixels 0..255, ``[..., H, W, C]``, a tensor or an array of any number type; it stays as it is.
        variant: a name in ``variants.MODELS``, such as ``"efficientnetv2-s"``.

    Returns:
        float32, a tensor of a tensor, an array of anything else. ``(x / 255 - mean) / deviation`` of ImageNet, per
        channel, for V1 and V2-B0 to B3; ``(x - 128) / 128`` for the others, and for images without three channels.
        Both are the reference code's.

    Raises:
        UsageError: for an unknown variant, with the nearest one, or if ``x`` has fewer than three dimensions.
    """
    spec = variants.get_spec(variant)
    if IS_KERAS_3 and isinstance(x, tf.keras.KerasTensor):
        pixels: Any = tf.keras.ops.cast(x, "float32")
    else:
        pixels = tf.cast(x, tf.float32) if tf.is_tensor(x) else np.asarray(x, np.float32)
    if len(pixels.shape) < 3:
        raise UsageError(f"x has shape {tuple(pixels.shape)}; pass images, [..., height, width, channels].")
    scale, offset = specs.pixel_rescaling(_for_channels(spec, pixels.shape[-1]).normalization)
    if pixels.shape[-1] != 3:  # all channels alike
        scale, offset = scale[:1], offset[:1]
    return pixels * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)


def _for_channels(spec: specs.ModelSpec, channels: int | None) -> specs.ModelSpec:
    """Centres images that have no ImageNet statistics, as Keras does."""
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
    """Does what the public functions do, which have all these arguments but the first."""
    spec = variants.MODELS[variant]
    top = include_top and not features_only
    size = spec.eval_size if top else None
    shape: Any = tuple(input_shape or (size, size, 3))
    channels = shape[-1] if input_tensor is None else getattr(input_tensor, "shape", shape)[-1]
    if features_only and pooling:
        raise UsageError(f"pooling is {pooling!r}, but features_only=True gives feature maps; leave out one of them.")
    if not 0 <= drop_path_rate < 1:
        raise UsageError(f"drop_path_rate is {drop_path_rate}; it must lie in [0, 1).")
    path = _find_weights(weights, variant, classes if top else None, classifier_activation, channels, cache_dir)
    model = build_model(
        _for_channels(spec, channels),
        num_classes=classes,
        include_top=top,
        input_shape=shape,
        input_tensor=input_tensor,
        pooling=None if top else pooling,
        survival_prob=1 - drop_path_rate,
        dropout_rate=dropout_rate,
        bn_momentum=bn_momentum,
        bn_epsilon=bn_epsilon,
        activation=activation,
        include_preprocessing=include_preprocessing,
        dtype=dtype,
        classifier_activation=classifier_activation,
        name=name,
    )
    if path is not None:  # goes into the network without what made its input
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
    """Gives the path of the weights, which are fetched if they go by a name; ``classes`` is None without a top.

    It comes before anything is built, for those that cannot be had or do not fit.
    """
    end = tf.keras.activations.get(activation) if classes is not None else None  # refuses unknown names
    if weights is None:
        return None
    path = os.path.expanduser(os.fspath(weights))
    if weights not in registry.NAMES and not any(tf.io.gfile.exists(path + suffix) for suffix in ("", ".index")):
        raise UsageError(
            f"weights is {os.fspath(weights)!r}, which is no file; use one of {', '.join(registry.NAMES)}, the path of "
            "a file, or None for fresh weights."
        )
    if weights in registry.NAMES and classes not in (None, registry.NAMES[str(weights)]):
        raise UsageError(
            f"classes is {classes}, but the weights {weights!r} have a classifier of {registry.NAMES[str(weights)]}; "
            "pass that, or include_top=False and a classifier of your own."
        )
    if weights in registry.NAMES and channels != 3:
        raise UsageError(f"The images have {channels} channels, but the weights {weights!r} are for 3 (RGB).")
    if classes is not None and end not in (tf.keras.activations.softmax, tf.keras.activations.linear):
        raise UsageError(
            f"classifier_activation is {activation!r}; with weights it can only be 'softmax', or None for logits."
        )
    if weights in registry.NAMES:
        return registry.fetch(str(weights), variant, with_top=classes is not None, cache_dir=cache_dir)
    return weights


def _published(
    network: Callable[Concatenate[str, _Arguments], tf.keras.Model], title: str, variant: str
) -> Callable[_Arguments, tf.keras.Model]:
    """Makes the public function of one variant: the network's signature, but a name and documentation of its own."""
    spec = variants.MODELS[variant]
    v1 = "v2" not in variant
    # V1's as in Keras: preprocessing is no argument by position, which nothing is that partial() binds by name.
    defaults: Any = {"include_preprocessing": True, "bn_momentum": 0.99} if v1 else {}
    bound = functools.partial(network, variant, **defaults)

    @functools.wraps(bound, assigned=())  # inspect and help() take the signature from there
    def application(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> tf.keras.Model:
        return bound(*args, **kwargs)

    application.__name__ = application.__qualname__ = title
    application.__doc__ = _DOCUMENTATION.format(
        title=title,
        variant=variant,
        paper="1905.11946" if v1 else "2104.00298",
        size=spec.eval_size,
        dropout=spec.dropout_rate,
        normalization={"centered": "``(pixel - 128) / 128``", "imagenet": "ImageNet's mean and deviation"}[
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
