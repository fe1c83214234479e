from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.distribution.replicas import sum_over_replicas
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.optim import loss_scale, optimizers

GRADIENTS = [1.0, np.inf, 1.0, 1.0, np.nan, np.inf, *[1.0] * 7, np.inf, 1.0]


def new_optimizer(variable):
    optimizer = optimizers.make_optimizer("sgd", schedule=0.5, loss_scaling=True)
    optimizer.build([variable])
    return optimizer


@pytest.fixture
def grows_soon(monkeypatch):
    monkeypatch.setattr(loss_scale, "_GROWTH_STEPS", 3)


def trace(strategy):
    """Scale, steps since it changed, iterations and weight after each step, in a graph."""
    with strategy.scope():
        variable = tf.Variable([1.0])
        optimizer = new_optimizer(variable)

    @tf.function
    def step(value):
        def replica(value):
            gradient = sum_over_replicas([tf.reshape(value / strategy.num_replicas_in_sync, [1])])[0]
            optimizer.apply_gradients([(gradient, variable)])

        strategy.run(replica, args=(value,))

    rows, scale = [], optimizer.loss_scale
    for gradient in GRADIENTS:
        step(tf.constant(gradient))
        values = scale.current_loss_scale, scale.good_steps, optimizer.iterations, variable
        rows.append([float(value.numpy().sum()) for value in values])
    return np.array(rows)


def by_hand():
    scale, good, weight, rows = 2.0**15, 0, 1.0, []
    for count, gradient in enumerate(GRADIENTS, 1):
        if np.isfinite(gradient):
            weight, good = weight - 0.5 * gradient, good + 1
            if good == 3:
                scale, good = 2 * scale, 0
        else:
            scale, good = scale / 2, 0
        rows.append([scale, good, count, weight])
    return np.array(rows)


def test_the_rule(grows_soon):
    np.testing.assert_array_equal(trace(tf.distribute.get_strategy()), by_hand())


def test_the_rule_on_two_replicas(grows_soon, two_replicas):
    np.testing.assert_array_equal(trace(two_replicas), by_hand())


@pytest.mark.skipif(IS_KERAS_3, reason="the peer is that of Keras 2")
def test_same_as_keras():
    variable, other = tf.Variable([1.0]), tf.Variable([1.0])
    ours = new_optimizer(variable)
    keras = tf.keras.optimizers.SGD(0.5, jit_compile=False)
    theirs = tf.keras.mixed_precision.LossScaleOptimizer(keras, dynamic_growth_steps=loss_scale._GROWTH_STEPS)
    for gradient in (1.0, np.inf, 3.0, np.nan):
        loss = tf.constant(gradient, tf.float16)
        np.testing.assert_array_equal(ours.loss_scale.scaled(loss), theirs.get_scaled_loss(loss))
        mine, other_gradients = (
            unscale([tf.constant([gradient])]) for unscale in (ours.loss_scale.unscaled, theirs.get_unscaled_gradients)
        )
        np.testing.assert_array_equal(mine, other_gradients)
        ours.apply_gradients(zip(mine, [variable]))
        theirs.apply_gradients(zip(other_gradients, [other]))
        np.testing.assert_array_equal(variable, other)
        assert float(ours.loss_scale.current_loss_scale) == float(theirs.loss_scale)


def test_the_scale_stays_at_least_one():
    scale = loss_scale.LossScale()
    scale.current_loss_scale.assign(1.0)
    assert not scale.update([tf.constant([np.inf]), tf.constant([0.0])])
    assert float(scale.current_loss_scale) == 1.0


def test_the_scale_stays_finite(grows_soon):
    scale = loss_scale.LossScale()
    scale.current_loss_scale.assign(3e38)
    for _ in range(3):
        assert scale.update([tf.constant([1.0])])
    assert float(scale.current_loss_scale) == np.float32(3e38)
    assert int(scale.good_steps) == 0
