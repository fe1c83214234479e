"""The two blocks of EfficientNetV2. To add a kind, describe it in ``architecture/parts.py`` and extend ``BLOCKS``."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from effnetv2_keras.architecture.parts import SQUEEZE_EXCITE, Part, SqueezePart, parts_of
from effnetv2_keras.architecture.specs import BlockKind, BlockSpec
from effnetv2_keras.models import layers, scopes
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.package import PACKAGE
from effnetv2_keras.models.rematerialization import rematerialize


class Block(layers.Compound):
    """Base class of the blocks: settings, drop-path and residual connection.

    Args:
        input_filters: channels of the input.
        output_filters: channels of the output.
        kernel_size: side of the spatial kernel, pixels.
        stride: stride, pixels.
        expand_ratio: width of the hidden layer / ``input_filters``.
        se_ratio: squeeze-and-excite width / ``input_filters``; 0 for no squeeze-and-excite.
        drop_path_rate: probability that a sample skips the block in training, in [0, 1).
        activation: the name of an activation in ``tf.keras.activations``.
        bn_momentum: BatchNorm momentum, in [0, 1).
        bn_epsilon: BatchNorm epsilon, above 0.
        freeze_bn: whether the BatchNorms are not trainable at first.
    """

    kind: ClassVar[BlockKind]

    def __init__(
        self,
        *,
        input_filters: int,
        output_filters: int,
        kernel_size: int = 3,
        stride: int = 1,
        expand_ratio: int = 1,
        se_ratio: float = 0.0,
        drop_path_rate: float = 0.0,
        activation: str = "silu",
        bn_momentum: float = 0.9,
        bn_epsilon: float = 1e-3,
        freeze_bn: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = BlockSpec(self.kind, 1, kernel_size, stride, expand_ratio, input_filters, output_filters, se_ratio)
        self.activation = activation
        self.bn_momentum = bn_momentum
        self.bn_epsilon = bn_epsilon
        self.drop_path_rate = drop_path_rate
        self._freeze_bn = freeze_bn
        self.branch = [self._layer_of(part) for part in parts_of(self.spec)]
        for part in self.branch if IS_KERAS_3 else ():  # in Keras 3, tf.train.Checkpoint does not track lists of layers
            setattr(self, part.name, part)
        if self.spec.has_residual:
            self.drop_path = layers.DropPath(drop_path_rate, dtype=self.dtype_policy, name="drop_path")

    def _layer_of(self, part: Part) -> tf.keras.layers.Layer:
        if isinstance(part, SqueezePart):
            return layers.SqueezeExcite(
                part.filters, part.squeezed, activation=self.activation, dtype=self.dtype_policy, name=SQUEEZE_EXCITE
            )
        return layers.ConvNorm(
            None if part.is_depthwise else part.filters,
            part.kernel_size,
            stride=part.stride,
            activation=self.activation if part.activates else None,
            bn_momentum=self.bn_momentum,
            bn_epsilon=self.bn_epsilon,
            freeze_bn=self._freeze_bn,
            dtype=self.dtype_policy,
            name=part.role,
        )

    def _parts(self) -> list[tf.keras.layers.Layer]:
        return list(self.branch)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Maps ``[N, H, W, input_filters]`` to ``[N, ceil(H / stride), ceil(W / stride), output_filters]``."""
        if training and scopes.current_pass().rematerialize:
            return rematerialize(self._train, inputs, self.trainable_variables)
        return self._apply(inputs, training)

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._apply(inputs, True)

    def _apply(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        outputs = inputs
        for layer in self.branch:
            outputs = layer(outputs, training=training)
        if self.spec.has_residual:
            outputs = inputs + self.drop_path(outputs, training=training)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "input_filters": self.spec.input_filters,
            "output_filters": self.spec.output_filters,
            "kernel_size": self.spec.kernel_size,
            "stride": self.spec.stride,
            "expand_ratio": self.spec.expand_ratio,
            "se_ratio": self.spec.se_ratio,
            "drop_path_rate": self.drop_path_rate,
            "activation": self.activation,
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
            "freeze_bn": all(not part.norm.trainable for part in self.branch if isinstance(part, layers.ConvNorm)),
        }


@tf.keras.utils.register_keras_serializable(PACKAGE)
class MBConv(Block):
    """Inverted bottleneck: expand 1x1, depthwise kxk, squeeze-and-excite, project 1x1 without activation.

    If ``expand_ratio`` is 1, there is no expansion. Source: paper, figure 2; reference code.
    """

    kind = "mbconv"


@tf.keras.utils.register_keras_serializable(PACKAGE)
class FusedMBConv(Block):
    """MBConv with one full kxk convolution instead of the expansion and the depthwise convolution.

    If ``expand_ratio`` is 1, the block has only that convolution, to ``output_filters`` and with an activation.
    Squeeze-and-excite is then applied to the block's input. Source: paper, figure 2; reference code.
    """

    kind = "fused_mbconv"


BLOCKS: dict[BlockKind, type[Block]] = {"mbconv": MBConv, "fused_mbconv": FusedMBConv}
"""The class for each ``BlockSpec.kind``."""
