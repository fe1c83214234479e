from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import BatchNorm, training_scope
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of, tf_variables

CHANNELS = 3
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def images(seed=0, mean=0.0):
    return tf.constant(np.random.default_rng(seed).normal(mean, 1, [8, 5, 4, CHANNELS]), tf.float32)


def built(kind=BatchNorm, **settings):
    layer = kind(**{"momentum": 0.9, "epsilon": 1e-3, **settings})
    layer.build([None, 5, 4, CHANNELS])
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([0.0, -1.0, 1.0])
    return layer


def outputs_and_gradients(layer, inputs, **scope):
    """Those of a sum over the images, so that replicas' shares add up; the averages move."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        with training_scope(**scope):
            outputs = layer(inputs, training=True)
        weight = tf.constant(np.random.default_rng(9).normal(size=inputs.shape[1:]), tf.float32)
        loss = tf.reduce_sum(weight * tf.cast(outputs, tf.float32) ** 2)
    return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_variables])]


def averages(layer):
    return [layer.moving_mean.numpy(), layer.moving_variance.numpy()]


@pytest.mark.parametrize("sync_bn", [True, False])
@pytest.mark.parametrize(("policy", "tolerance"), zip(POLICIES, [2e-5, 4e-2, 4e-3]))
def test_one_replica_alone_trains_as_keras_does(policy, tolerance, sync_bn):
    ours, theirs = built(dtype=policy), built(tf.keras.layers.BatchNormalization, dtype=policy)
    inputs = tf.cast(images(), ours.compute_dtype)
    expected = outputs_and_gradients(theirs, inputs) + averages(theirs)
    if IS_KERAS_3:  # which averages the biased variance, 0.1 of which is in the average now
        count = np.prod(inputs.shape[:-1])
        expected[-1] = np.float32(0.9 + (expected[-1] - 0.9) * count / (count - 1))
    for mine, other in zip(outputs_and_gradients(ours, inputs, sync_bn=sync_bn) + averages(ours), expected):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(np.float32(mine), np.float32(other), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shares", [(4, 4), (6, 2)])
def test_replicas_train_on_one_batch_together(two_replicas, shares):
    alone = built()
    expected = outputs_and_gradients(alone, images())
    with two_replicas.scope():
        layer = built()
    parts = tf.split(images(), shares)

    @tf.function
    def step():
        values = two_replicas.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )
        return two_replicas.run(outputs_and_gradients, (layer, values), {"sync_bn": True})

    results = [two_replicas.experimental_local_results(value) for value in step()]
    for index, (mine, other) in enumerate(zip(results, expected)):
        whole = tf.concat(mine, 0) if index < 2 else tf.add_n(mine)  # of weights, each replica has its share
        np.testing.assert_allclose(whole, other, rtol=1e-4, atol=2e-5)
    for mine, other in zip(tf_variables([layer.moving_mean, layer.moving_variance]), averages(alone)):
        for replica in two_replicas.experimental_local_results(mine):
            np.testing.assert_allclose(replica, other, rtol=1e-5, atol=1e-6)


def test_a_large_mean_costs_the_variance_no_digits():
    """In float32 a mean of 10,000 leaves a difference of mean square and squared mean none at all."""
    layer = built(momentum=0.0)
    inputs = images(mean=1e4)
    outputs_and_gradients(layer, inputs, sync_bn=True)
    expected = np.var(np.float64(inputs), axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-4)


@pytest.mark.parametrize("sync_bn", [False, True])
@pytest.mark.parametrize(("policy", "digits"), [("mixed_bfloat16", 7), ("mixed_float16", 10)])
def test_statistics_are_float32_under_16_bits(policy, digits, sync_bn):
    """Values next to each other in the policy's type: mean and variance lie between two of its numbers."""
    layer = built(dtype=policy, momentum=0.0, epsilon=2e-5)
    layer.moving_variance.assign([0.0] * CHANNELS)
    step = 2.0**-digits
    inputs = np.full([8, 4, 4, CHANNELS], 1.0)
    inputs[::4] += step
    outputs = outputs_and_gradients(layer, tf.cast(inputs, layer.compute_dtype), sync_bn=sync_bn)[0]
    mean, variance = 1 + step / 4, step**2 * 3 / 16
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-7)
    np.testing.assert_allclose(layer.moving_variance, variance * 128 / 127, rtol=1e-3)
    assert layer.moving_mean.dtype == layer.moving_variance.dtype == tf.float32
    expected = (inputs - mean) / np.sqrt(variance + 2e-5) * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(np.float32(outputs), expected, rtol=0.01, atol=2e-3)


@pytest.mark.parametrize("sync_bn", [False, True])
def test_a_variance_beyond_float16_is_no_infinity(sync_bn):
    layer = built(dtype="mixed_float16", momentum=0.0)
    outputs = outputs_and_gradients(layer, tf.cast(1000 * images(), tf.float16), sync_bn=sync_bn)[0]
    assert (layer.moving_variance.numpy() > 65504).all()
    assert np.isfinite(outputs).all()
    assert np.std(outputs) > 0.5


@pytest.mark.parametrize("sync_bn", [False, True])
def test_passes_of_one_step_move_the_averages_as_far_as_one_pass(sync_bn):
    whole, parts = built(), built()
    for layer in (whole, parts):
        layer.moving_mean.assign([5.0, -5.0, 0.0])
    outputs_and_gradients(whole, images(), sync_bn=sync_bn)
    for _ in range(4):
        outputs_and_gradients(parts, images(), sync_bn=sync_bn, micro_batches=4)
    for mine, other in zip(averages(parts), averages(whole)):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    assert parts.get_config()["momentum"] == 0.9


@pytest.mark.parametrize("training", [True, False])
def test_frozen_or_at_inference_the_scope_means_nothing(training):
    layer = built(trainable=not training)
    before = averages(layer)
    with training_scope(sync_bn=True, micro_batches=2):
        outputs = layer(images(), training=training)
    np.testing.assert_allclose(outputs, images() / np.sqrt(1.001) * layer.gamma + layer.beta, atol=1e-5)
    np.testing.assert_array_equal(averages(layer), before)


def test_weights_and_settings_are_those_of_keras():
    ours, theirs = built(name="norm"), built(tf.keras.layers.BatchNormalization, name="norm")
    assert [path_of(weight) for weight in ours.weights] == [path_of(weight) for weight in theirs.weights]
    assert ours.get_config() == theirs.get_config()
    assert isinstance(BatchNorm.from_config(ours.get_config()), BatchNorm)


def test_scopes_end_and_replace_each_other():
    layer = built()
    with training_scope(micro_batches=2):
        with training_scope():
            assert layer.momentum == 0.9
        with pytest.raises(KeyError), training_scope(micro_batches=3):
            raise KeyError
        assert layer.momentum == pytest.approx(0.9**0.5)
    assert layer.momentum == 0.9


def test_no_pass_at_all_is_refused():
    with pytest.raises(ValueError, match="micro_batches is 0, but must be at least 1"), training_scope(micro_batches=0):
        pass
