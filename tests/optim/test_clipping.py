from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.optim.clipping import clip_gradients, norms_of


def clip(gradients, limit):
    return clip_gradients(gradients, norms_of(gradients), limit)


def reference(gradients, limit):
    each = [gradient * min(1.0, limit / max(np.linalg.norm(gradient), 1e-30)) for gradient in gradients]
    whole = np.sqrt(sum(np.sum(gradient**2) for gradient in each))
    return [gradient * min(1.0, limit / max(whole, 1e-30)) for gradient in each]


@given(seed=st.integers(0, 2**16), limit=st.floats(1e-3, 1e3), scale=st.floats(-4, 4))
@settings(max_examples=40, deadline=None)
def test_same_as_numpy(seed, limit, scale):
    random = np.random.default_rng(seed)
    gradients = [random.normal(size=shape) * 10 ** (scale + random.uniform(-1, 1)) for shape in [(3, 4), (5,), ()]]
    clipped = clip([tf.constant(gradient, tf.float32) for gradient in gradients], limit)
    for mine, other in zip(clipped, reference(gradients, limit)):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=1e-7)


def test_long_ones_are_cut_before_all_are():
    """Clipping by the global norm alone would leave the short gradient at a hundredth of the long one."""
    clipped = clip([tf.constant([100.0, 0.0]), tf.constant([1.0])], 1.0)
    assert clipped[0].numpy().tolist() == pytest.approx([2**-0.5, 0.0])
    assert clipped[1].numpy().tolist() == pytest.approx([2**-0.5])


def test_short_ones_and_zeros_stay():
    gradients = [tf.constant([0.3, 0.4]), tf.zeros(3)]
    for mine, other in zip(clip(gradients, 1.0), gradients):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("graph", [False, True])
def test_one_that_is_not_finite_spoils_all(wrong, graph):
    run = tf.function(clip) if graph else clip
    gradients = [tf.constant([1.0, 2.0]), tf.constant([0.5, wrong]), tf.ones([3])]
    assert all(np.isnan(gradient).all() for gradient in run(gradients, 1.0))
