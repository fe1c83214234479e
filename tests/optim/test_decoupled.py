from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.optim import decoupled, optimizers
from effnetv2_keras.optim.schedules import WarmupSchedule, WeightDecay

NAMES = ("conv/kernel", "conv/bias", "norm/gamma", "depthwise/depthwise_kernel", "zero/kernel")
DECAYED = (True, False, False, True, True)
STEPS = 100
SCHEDULE = WarmupSchedule("cosine", 0.05, 130, 10, 1.0, 1.0, 0.0)
DECAY = WeightDecay(0.1, increase=2.0, total_steps=STEPS)


@pytest.fixture(scope="module")
def steps():
    """Starting values (the last variable is all zeros), and the gradients of each step."""
    random = np.random.default_rng(0)
    start = [random.normal(size=4) * scale for scale in (1.0, 3.0, 0.3, 10.0, 0.0)]
    scales = 10.0 ** random.uniform(-3, 1, size=STEPS)
    return start, [[scale * random.normal(size=4) for _ in NAMES] for scale in scales]


def run(optimizer_of, steps):
    """The variables after every step, ``[steps, variables, 4]``."""
    start, gradients = steps
    variables = [tf.Variable(value, dtype=tf.float32, name=name) for name, value in zip(NAMES, start)]
    optimizer = optimizer_of([variable for variable, decayed in zip(variables, DECAYED) if not decayed])
    trace = []
    for step in gradients:
        optimizer.apply_gradients([(tf.constant(g, tf.float32), v) for g, v in zip(step, variables)])
        trace.append([variable.numpy() for variable in variables])
    return np.array(trace)


def by_hand(steps, *, epsilon, update):
    """Adam's direction in float64, which ``update(weight, direction, rate, decay)`` turns into a new weight."""
    start, gradients = steps
    weights = [value.copy() for value in start]
    m, v = np.zeros([2, len(NAMES), 4])
    trace = []
    for step, gradient in enumerate(np.array(gradients)):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrected_m, corrected_v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        rate, decay = float(SCHEDULE(step)), 0.1 * (1 + 2.0 * step / STEPS)
        directions = corrected_m / (np.sqrt(corrected_v) + epsilon(step))
        weights = [
            update(weight, direction, rate, decay * decayed, decayed)
            for weight, direction, decayed in zip(weights, directions, DECAYED)
        ]
        trace.append(weights)
    return np.array(trace)


def adamw(weight, direction, rate, decay, decayed):
    return weight * (1 - rate * decay) - rate * direction


def lamb(weight, direction, rate, decay, decayed):
    direction = direction + decay * weight
    norms = np.linalg.norm(weight), np.linalg.norm(direction)
    return weight - rate * direction * (norms[0] / norms[1] if decayed and min(norms) > 0 else 1.0)


def test_adamw_by_hand(steps):
    # TensorFlow adds epsilon before it corrects the bias of the denominator, not after.
    expected = by_hand(steps, epsilon=lambda step: 1e-8 / np.sqrt(1 - 0.999 ** (step + 1)), update=adamw)
    ours = run(lambda others: decoupled.AdamW(SCHEDULE, weight_decay=DECAY, not_decayed=others), steps)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)
    undecayed = by_hand(steps, epsilon=lambda _: 1e-8, update=lambda w, d, rate, *_: w - rate * d)
    moved = np.abs(undecayed[-1] - expected[-1]).max(axis=1)
    assert moved[[0, 3]].min() > 0.1
    assert moved[[1, 2]].max() < 1e-5


def test_lamb_by_hand(steps):
    expected = by_hand(steps, epsilon=lambda _: 1e-6, update=lamb)
    ours = run(lambda others: decoupled.LAMB(SCHEDULE, weight_decay=DECAY, not_decayed=others), steps)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)
    assert np.abs(ours[-1] - ours[0]).max() > 0.1


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_lamb_is_that_of_addons(steps, strength):
    addons = pytest.importorskip("tensorflow_addons")
    regexes = ["bias", "gamma"]
    theirs = run(
        lambda _: addons.optimizers.LAMB(SCHEDULE, weight_decay=strength, exclude_from_weight_decay=regexes), steps
    )
    ours = run(lambda others: decoupled.LAMB(SCHEDULE, weight_decay=WeightDecay(strength), not_decayed=others), steps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_variables_are_told_apart_by_identity():
    """A variable decays even if its name contains the name of one that does not."""
    variables = [tf.Variable([1.0, 2.0], name=name) for name in ("conv/bias", "block/conv/bias", "conv/bias_2")]
    optimizer = decoupled.LAMB(0.1, weight_decay=WeightDecay(0.5), not_decayed=variables[:1])
    optimizer.apply_gradients([(tf.zeros(2), variable) for variable in variables])
    np.testing.assert_allclose([v.numpy() for v in variables], [[1.0, 2.0], [0.9, 1.8], [0.9, 1.8]], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.DECOUPLED))
def test_all_decay_where_none_is_named(name):
    variable = tf.Variable([1.0, 2.0], name="norm/gamma")
    optimizer = optimizers.make_optimizer(name, schedule=SCHEDULE, weight_decay=WeightDecay(0.5))
    for _ in range(2):  # the first has a learning rate of zero
        optimizer.apply_gradients([(tf.zeros(2), variable)])
    assert variable.numpy().max() < 2.0


def test_addons_are_never_imported():
    code = (
        "import sys, effnetv2_keras.training.loop\n"
        "from effnetv2_keras.optim import optimizers\n"
        "for name in optimizers.OPTIMIZERS:\n"
        "    optimizers.make_optimizer(name, schedule=0.1)\n"
        "assert 'tensorflow_addons' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
