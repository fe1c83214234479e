from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import FusedMBConv, MBConv, stochastic_scope, training_scope
from effnetv2_keras.models.keras_compat import sublayers

KINDS = [MBConv, FusedMBConv]


@pytest.fixture(autouse=True)
def graphs_as_traced():
    """TensorFlow's graph optimiser fuses operations where no gradient needs what lies between, and so rounds less."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def built(kind, **settings):
    settings = {"input_filters": 8, "output_filters": 8, "expand_ratio": 4, "se_ratio": 0.25, **settings}
    block = kind(**settings)
    block(tf.zeros([1, 6, 6, 8]))
    return block


def inputs(dtype=tf.float32):
    return tf.cast(np.random.default_rng(0).normal(size=[16, 6, 6, 8]), dtype)


def train(block, images, **scope):
    with tf.GradientTape() as tape:
        tape.watch(images)
        with stochastic_scope(tf.constant([3, 4])), training_scope(**scope):
            outputs = block(images, training=True)
            outputs = block(outputs, training=True)  # so that draws are not the scope's first
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3)
    return [outputs, *tape.gradient(loss, [images, *block.trainable_variables])]


@pytest.mark.parametrize(
    ("sync_bn", "in_graph"),
    [
        (True, True),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((False, True), (False, False), (True, False))),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_but_the_memory(kind, policy, sync_bn, in_graph):
    kept, computed_twice = (built(kind, drop_path_rate=0.5, dtype=policy) for _ in range(2))
    computed_twice.set_weights(kept.get_weights())
    start = kept.get_weights()
    run = tf.function(train) if in_graph else train
    expected = run(kept, inputs(kept.compute_dtype), sync_bn=sync_bn)
    results = run(computed_twice, inputs(kept.compute_dtype), sync_bn=sync_bn, rematerialize=True)
    for mine, other in zip(results, expected):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(np.float32(mine), np.float32(other), rtol=1e-6, atol=1e-6)
    assert np.ptp(results[0].numpy().astype(np.float32)) > 0
    for mine, other in zip(computed_twice.get_weights(), kept.get_weights()):
        np.testing.assert_array_equal(mine, other)
    assert sum(not np.array_equal(new, old) for new, old in zip(kept.get_weights(), start)) == 2 * len(norms(kept))


def norms(block):
    return [part for part in sublayers(block) if isinstance(part, tf.keras.layers.BatchNormalization)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_computes_the_block_again(kind):
    block = built(kind)

    def counted(rematerialize):
        traced = tf.function(train).get_concrete_function(block, inputs(), rematerialize=rematerialize)
        return collections.Counter(operation.type for operation in traced.graph.get_operations())

    kept, computed_twice = counted(False), counted(True)
    assert kept["FusedBatchNormV3"] == 2 * len(norms(block))
    assert computed_twice["FusedBatchNormV3"] == 2 * kept["FusedBatchNormV3"]
    assert computed_twice["FusedBatchNormGradV3"] == kept["FusedBatchNormGradV3"]
    assert computed_twice["AssignVariableOp"] == kept["AssignVariableOp"]


def test_a_frozen_block_hands_the_gradient_on():
    block = built(MBConv)
    block.trainable = False
    expected, results = train(block, inputs()), train(block, inputs(), rematerialize=True)
    assert len(results) == 2
    for mine, other in zip(results, expected):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_inference_is_not_concerned():
    block = built(MBConv)
    with training_scope(rematerialize=True):
        np.testing.assert_array_equal(block(inputs()), block(inputs(), training=False))


def test_draws_that_cannot_be_repeated_are_refused():
    with training_scope(rematerialize=True), pytest.raises(ValueError, match="No stochastic_scope is active"):
        built(MBConv)(inputs(), training=True)
