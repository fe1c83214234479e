"""Networks that consist of Keras' own layers only, with the names and the order of ``tf.keras.applications``.

A saved model of this form loads without this package, and with Keras 3 it runs on every backend. ``build_model`` builds
the same networks from one layer per block, for training with this package. ``weights/conversion.py`` converts them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Union

import tensorflow as tf

from effnetv2_keras.architecture import keras_names, specs
from effnetv2_keras.architecture.parts import ConvPart, Part, SqueezePart, parts_of

_L = tf.keras.layers
_POOLING = {"avg": _L.GlobalAveragePooling2D, "max": _L.GlobalMaxPooling2D}

Activation = Union[str, Callable[[Any], Any], None]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How a network of Keras' layers turns pixels 0..255 into its input.

    Attributes:
        mean: mean per channel, in 0..255.
        deviation: standard deviation per channel, in 0..255.
        adaptable: whether mean and variance are weights of the network, as in V1, and start as 0 and 1 (of pixels
            0..1), as in Keras.
        published: whether a third layer divides by the square root of ImageNet's standard deviations, as in a V1
            network of Keras with ``weights="imagenet"``.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    adaptable: bool = False
    published: bool = False


@dataclasses.dataclass(frozen=True)
class FlatSettings:
    """The settings of a network of Keras' layers, besides its blocks.

    Attributes:
        style: conventions of V1 or V2.
        drop_rates: stochastic-depth rate of each block, in [0, 1); a block with rate 0 has no layer for it.
        pixels: the normalization that the network includes; None if it takes normalized images.
        bn_momentum: BatchNorm momentum, in [0, 1).
        bn_epsilon: BatchNorm epsilon, above 0.
        activation: the name of an activation in ``tf.keras.activations``.
        dtype: a dtype policy; None for Keras' global policy. With a mixed policy, normalization, pooling and the
            classifier are float32.
        pads: whether V1's style pads before convolutions of stride 2 with layers of their own, as Keras does. Without
            them the padding is "same", which differs at odd sizes if the network does not know the image size.
        prefix: beginning of the names of all layers.
    """

    style: keras_names.Style
    drop_rates: Sequence[float]
    pixels: Pixels | None
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-3
    activation: str = "silu"
    dtype: Any = None
    pads: bool = True
    prefix: str = ""


@dataclasses.dataclass(frozen=True)
class Top:
    """What follows the last feature map.

    Attributes:
        num_classes: width of the classifier; None for no classifier.
        dropout_rate: dropout before the classifier, in [0, 1); 0 for no layer.
        activation: activation of the classifier.
        pooling: ``"avg"``, ``"max"`` or None, used without a classifier.
    """

    num_classes: int | None = None
    dropout_rate: float = 0.0
    activation: Activation = None
    pooling: str | None = None


def build_flat_model(
    expanded: specs.ExpandedSpec, images: Any, sources: Any, settings: FlatSettings, top: Top, *, name: str
) -> tf.keras.Model:
    """Returns a functional model of Keras' own layers with random initial weights.

    Args:
        expanded: the network, block by block.
        images: Keras tensor ``[N, H, W, C]``, or ``[N, C, H, W]`` if Keras' image format is ``channels_first``.
        sources: the inputs that ``images`` is computed from.
        settings: the settings of the body.
        top: what follows the body.
        name: name of the model.
    """
    build = _Builder(settings)
    x = build.preprocessing(images)
    x = build.stem(x, expanded.stem_filters)
    prefixes = keras_names.block_prefixes(expanded.stage_ends)
    for block, rate, prefix in zip(expanded.blocks, settings.drop_rates, prefixes):
        x = build.block(x, block, rate, prefix)
    x = build.conv_norm(x, "top", expanded.head_filters, 1, 1)
    return tf.keras.Model(sources, build.top(x, top), name=name)


class _Builder:
    """Applies the parts of a network to Keras tensors."""

    def __init__(self, settings: FlatSettings) -> None:
        self._settings = settings
        self._first = tf.keras.backend.image_data_format() == "channels_first"
        self._axis = 1 if self._first else 3
        activation = settings.activation
        self._activation = "swish" if activation == "silu" else activation  # Keras 2 would store another name
        policy = settings.dtype or _global_policy()
        self._body = {} if settings.dtype is None else {"dtype": settings.dtype}
        self._ends = {"dtype": "float32"} if getattr(policy, "name", str(policy)).startswith("mixed_") else self._body

    def preprocessing(self, images: Any) -> Any:
        """Normalizes pixels. The layers have the names that Keras gives them, as in Keras' networks."""
        pixels = self._settings.pixels
        if pixels is None:
            return images
        if pixels.adaptable:
            return self._adaptable(images, published=pixels.published)
        if pixels == imagenet_pixels():
            x = _L.Rescaling(scale=1.0 / 255, **self._ends)(images)
            mean, variance = [0.485, 0.456, 0.406], [deviation**2 for deviation in IMAGENET]
            return _L.Normalization(mean=mean, variance=variance, axis=self._axis, **self._ends)(x)
        scale, offset = [1 / each for each in pixels.deviation], [-m / d for m, d in zip(pixels.mean, pixels.deviation)]
        if len({*zip(scale, offset)}) == 1:  # all channels alike
            return _L.Rescaling(scale=scale[0], offset=offset[0], **self._ends)(images)
        if self._first:
            return _L.Rescaling(scale=_upright(scale), offset=_upright(offset), **self._ends)(images)
        return _L.Rescaling(scale=scale, offset=offset, **self._ends)(images)

    def _adaptable(self, images: Any, *, published: bool) -> Any:
        x = _L.Rescaling(1.0 / 255.0, **self._ends)(images)
        x = _L.Normalization(axis=self._axis, **self._ends)(x)
        scale = [*map(_inverse_root, IMAGENET)]
        return _L.Rescaling(_upright(scale) if self._first else scale, **self._ends)(x) if published else x

    def stem(self, x: Any, filters: int) -> Any:
        """Applies the first convolution, of stride 2."""
        return self.conv_norm(self._pad(x, 3, "stem_conv_pad"), "stem", filters, 3, 2)

    def conv_norm(self, x: Any, name: str, filters: int, kernel_size: int, stride: int) -> Any:
        """Applies a convolution outside the blocks, BatchNorm and the activation."""
        padding = "valid" if stride == 2 and self._pads else "same"
        x = self._conv(x, f"{name}_conv", filters, kernel_size, stride, padding)
        return self._activate(self._norm(x, f"{name}_bn"), f"{name}_activation")

    def block(self, x: Any, block: specs.BlockSpec, rate: float, prefix: str) -> Any:
        """Applies one block."""
        inputs = x
        for part in parts_of(block):
            x = self._part(x, part, prefix)
        if not block.has_residual:
            return x
        if rate > 0:
            name = self._name(f"{prefix}drop")
            x = _L.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name, **self._body)(x)
        return _L.Add(name=self._name(f"{prefix}add"), **self._body)([x, inputs])

    def top(self, x: Any, top: Top) -> Any:
        """Applies pooling, dropout and classifier, as far as the network has them."""
        pooling = "avg" if top.num_classes is not None else top.pooling
        if pooling:
            x = _POOLING[pooling](name=self._name(f"{pooling}_pool"), **self._ends)(x)
        if top.num_classes is None:
            return x
        if top.dropout_rate > 0:
            x = _L.Dropout(top.dropout_rate, name=self._name("top_dropout"), **self._ends)(x)
        return _L.Dense(
            top.num_classes,
            activation=top.activation,
            kernel_initializer=tf.keras.initializers.VarianceScaling(1.0 / 3.0, "fan_out", "uniform"),
            name=self._name("predictions"),
            **self._ends,
        )(x)

    def _part(self, x: Any, part: Part, prefix: str) -> Any:
        if isinstance(part, SqueezePart):
            return self._squeeze(x, part, prefix)
        conv, norm = (keras_names.OF_PARTS[f"{part.role}/{kind}"] for kind in ("conv", "norm"))
        if part.is_depthwise:
            x = self._depthwise(x, part, prefix)
        else:
            x = self._conv(x, f"{prefix}{conv}", part.filters, part.kernel_size, part.stride)
        x = self._norm(x, f"{prefix}{norm}")
        return self._activate(x, prefix + keras_names.ACTIVATIONS[part.role]) if part.activates else x

    def _depthwise(self, x: Any, part: ConvPart, prefix: str) -> Any:
        name, padding = f"{prefix}{self._settings.style.depthwise}", "same"
        if part.stride == 2 and self._pads:
            x, padding = self._pad(x, part.kernel_size, f"{name}_pad"), "valid"
        return _L.DepthwiseConv2D(
            part.kernel_size,
            strides=part.stride,
            padding=padding,
            use_bias=False,
            depthwise_initializer=_conv_initializer(),
            name=self._name(name),
            **self._body,
        )(x)

    def _squeeze(self, x: Any, part: SqueezePart, prefix: str) -> Any:
        shape = (part.filters, 1, 1) if self._first else (1, 1, part.filters)
        gate = _L.GlobalAveragePooling2D(name=self._name(f"{prefix}se_squeeze"), **self._body)(x)
        gate = _L.Reshape(shape, name=self._name(f"{prefix}se_reshape"), **self._body)(gate)
        for end, filters, activation in (
            ("se_reduce", part.squeezed, self._activation),
            ("se_expand", part.filters, "sigmoid"),
        ):
            gate = _L.Conv2D(
                filters,
                1,
                padding="same",
                activation=activation,
                kernel_initializer=_conv_initializer(),
                name=self._name(f"{prefix}{end}"),
                **self._body,
            )(gate)
        return _L.Multiply(name=self._name(f"{prefix}se_excite"), **self._body)([x, gate])

    def _conv(self, x: Any, name: str, filters: int, kernel_size: int, stride: int, padding: str = "same") -> Any:
        return _L.Conv2D(
            filters,
            kernel_size,
            strides=stride,
            padding=padding,
            use_bias=False,
            kernel_initializer=_conv_initializer(),
            name=self._name(name),
            **self._body,
        )(x)

    def _norm(self, x: Any, name: str) -> Any:
        settings = self._settings
        return _L.BatchNormalization(
            axis=self._axis,
            momentum=settings.bn_momentum,
            epsilon=settings.bn_epsilon,
            name=self._name(name),
            **self._body,
        )(x)

    def _activate(self, x: Any, name: str) -> Any:
        return _L.Activation(self._activation, name=self._name(name), **self._body)(x)

    @property
    def _pads(self) -> bool:
        return self._settings.style.is_v1 and self._settings.pads

    def _pad(self, x: Any, kernel_size: int, name: str) -> Any:
        """Pads for a convolution of stride 2 as Keras does, which takes an unknown size for an even one."""
        if not self._pads:
            return x
        sizes = x.shape[2:4] if self._first else x.shape[1:3]
        after = kernel_size // 2
        odd = [sizes[0] is not None and size is not None and size % 2 for size in sizes]
        padding = tuple((after if each else after - 1, after) for each in odd)
        return _L.ZeroPadding2D(padding, name=self._name(name), **self._body)(x)

    def _name(self, name: str) -> str:
        return self._settings.prefix + name


IMAGENET = (0.229, 0.224, 0.225)
"""ImageNet's standard deviations of pixels 0..1."""


def imagenet_pixels() -> Pixels:
    """Returns the normalization by ImageNet's mean and standard deviation."""
    return Pixels(*specs.PIXEL_STATISTICS["imagenet"])


def _inverse_root(value: float) -> float:
    return 1.0 / value**0.5


def _upright(values: list[float]) -> list[list[list[float]]]:
    """Returns numbers per channel for images whose first axis is that of the channels."""
    return [[[value]] for value in values]


def _conv_initializer() -> Any:
    return tf.keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def _global_policy() -> Any:
    return tf.keras.mixed_precision.global_policy()
