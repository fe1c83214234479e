from __future__ import annotations

import typing

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture.specs import BlockKind
from effnetv2_keras.models import BLOCKS, FusedMBConv, MBConv, stochastic_scope
from tests.models.filling import fill_at_random, kind_of

SHAPES = [
    (MBConv, 1, 3, 1, 8, 0.25),
    (MBConv, 1, 5, 2, 12, 0.0),
    (MBConv, 4, 3, 1, 8, 0.0),
    (MBConv, 6, 5, 2, 12, 0.25),
    (FusedMBConv, 1, 3, 1, 8, 0.0),
    (FusedMBConv, 1, 3, 1, 8, 0.5),
    (FusedMBConv, 1, 5, 2, 12, 0.25),
    (FusedMBConv, 4, 3, 1, 8, 0.25),
    (FusedMBConv, 4, 3, 2, 12, 0.0),
]


class Reference:
    """The blocks of the reference code in plain TensorFlow, taking a block's variables in order of use."""

    def __init__(self, block):
        self.layers = iter(block.branch)

    def conv(self, inputs, stride=1, activate=True):
        weights = {kind_of(variable): variable for variable in next(self.layers).variables}
        if "depthwise_kernel" in weights:
            outputs = tf.nn.depthwise_conv2d(inputs, weights["depthwise_kernel"], [1, stride, stride, 1], "SAME")
        else:
            outputs = tf.nn.conv2d(inputs, weights["kernel"], stride, "SAME")
        outputs = tf.nn.batch_normalization(
            outputs, weights["moving_mean"], weights["moving_variance"], weights["beta"], weights["gamma"], 1e-3
        )
        return outputs * tf.sigmoid(outputs) if activate else outputs

    def squeeze_excite(self, inputs):
        reduce, reduce_bias, expand, expand_bias = next(self.layers).variables
        means = tf.reduce_mean(inputs, (1, 2), keepdims=True)
        hidden = tf.nn.conv2d(means, reduce, 1, "SAME") + reduce_bias
        hidden = hidden * tf.sigmoid(hidden)
        return inputs * tf.sigmoid(tf.nn.conv2d(hidden, expand, 1, "SAME") + expand_bias)

    def branch(self, inputs, kind, expand_ratio, stride, has_se):
        outputs = inputs
        if kind is MBConv:
            outputs = self.conv(outputs) if expand_ratio != 1 else outputs
            outputs = self.conv(outputs, stride)
        elif expand_ratio != 1:
            outputs = self.conv(outputs, stride)
        outputs = self.squeeze_excite(outputs) if has_se else outputs
        if kind is FusedMBConv and expand_ratio == 1:
            return self.conv(outputs, stride)
        return self.conv(outputs, activate=False)


@pytest.mark.parametrize(("kind", "expand_ratio", "kernel_size", "stride", "filters", "se_ratio"), SHAPES)
def test_a_block_computes_what_the_reference_code_does(kind, expand_ratio, kernel_size, stride, filters, se_ratio):
    block = kind(
        input_filters=8,
        output_filters=filters,
        kernel_size=kernel_size,
        stride=stride,
        expand_ratio=expand_ratio,
        se_ratio=se_ratio,
    )
    inputs = tf.random.stateless_normal([2, 7, 6, 8], [0, 1])
    block(inputs)
    fill_at_random(block)

    reference = Reference(block)
    expected = reference.branch(inputs, kind, expand_ratio, stride, bool(se_ratio))
    if stride == 1 and filters == 8:
        expected += inputs
    assert next(reference.layers, None) is None
    np.testing.assert_allclose(block(inputs), expected, rtol=1e-5, atol=1e-5)
    assert block(inputs).shape == block.compute_output_shape(inputs.shape)


def test_squeeze_excite_width_follows_the_block_input():
    block = MBConv(input_filters=48, output_filters=96, stride=2, expand_ratio=4, se_ratio=0.25)
    block(tf.zeros([1, 4, 4, 48]))
    (squeeze,) = (layer for layer in block.branch if layer.name == "squeeze_excite")
    assert [tuple(variable.shape) for variable in squeeze.variables] == [
        (1, 1, 192, 12),
        (12,),
        (1, 1, 12, 192),
        (192,),
    ]


@pytest.mark.parametrize("kind", [MBConv, FusedMBConv])
def test_a_dropped_block_gives_back_its_input(kind):
    block = kind(input_filters=8, output_filters=8, expand_ratio=4, drop_path_rate=0.5)
    inputs = tf.random.normal([64, 4, 4, 8])
    with stochastic_scope(tf.constant([0, 0])):
        outputs = block(inputs, training=True).numpy()
    same = (outputs == inputs.numpy()).all((1, 2, 3))
    assert 16 < same.sum() < 48


@pytest.mark.parametrize("kind", [MBConv, FusedMBConv])
def test_a_block_without_residual_never_drops(kind):
    block = kind(input_filters=8, output_filters=8, stride=2, expand_ratio=4, drop_path_rate=0.9)
    inputs = tf.random.normal([16, 4, 4, 8])
    assert (block(inputs, training=True).numpy() != 0).any((1, 2, 3)).all()


def test_a_config_makes_the_same_block():
    block = MBConv(
        input_filters=8,
        output_filters=16,
        kernel_size=5,
        stride=2,
        expand_ratio=6,
        se_ratio=0.5,
        drop_path_rate=0.1,
        activation="relu",
        bn_momentum=0.7,
        bn_epsilon=1e-5,
        dtype="mixed_bfloat16",
        name="one",
    )
    assert MBConv.from_config(block.get_config()).get_config() == block.get_config()


def test_every_kind_of_block_is_registered():
    assert set(BLOCKS) == set(typing.get_args(BlockKind))
    assert all(block.kind == kind for kind, block in BLOCKS.items())
