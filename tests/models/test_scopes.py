from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import scopes


def seed(*numbers):
    return tf.constant(numbers, tf.int32)


def draw(*numbers):
    with scopes.stochastic_scope(seed(*numbers)):
        return scopes.uniform([64]).numpy()


def test_the_seed_alone_decides_the_numbers():
    assert np.array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


def test_every_draw_in_a_scope_differs_and_is_uniform():
    with scopes.stochastic_scope(seed(3, 4)):
        draws = np.stack([scopes.uniform([1000]).numpy() for _ in range(5)])
    assert len(np.unique(draws)) > 4990
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert draws.mean() == pytest.approx(0.5, abs=0.02)


def test_an_inner_scope_does_not_disturb_the_outer_one():
    with scopes.stochastic_scope(seed(1, 2), dropout_rate=0.25):
        first = scopes.uniform([8]).numpy()
        with scopes.stochastic_scope(seed(9, 9), dropout_rate=0.75):
            scopes.uniform([8])
            assert scopes.dropout_rate(0.5) == 0.75
        second = scopes.uniform([8]).numpy()
        assert scopes.dropout_rate(0.5) == 0.25
    with scopes.stochastic_scope(seed(1, 2)):
        assert np.array_equal(scopes.uniform([8]), first)
        assert np.array_equal(scopes.uniform([8]), second)
        assert scopes.dropout_rate(0.5) == 0.5


def test_outside_a_scope_numbers_follow_the_global_generator():
    def pair():
        tf.random.set_seed(5)
        return scopes.uniform([8]).numpy(), scopes.uniform([8]).numpy()

    first, second = pair()
    assert not np.array_equal(first, second)
    assert np.array_equal(pair(), (first, second))


def test_a_scope_ends_even_when_its_body_fails():
    with pytest.raises(KeyError), scopes.stochastic_scope(seed(1, 2), dropout_rate=0.9):
        raise KeyError
    assert scopes.dropout_rate(0.5) == 0.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tf.constant([1, 2, 3]), r"int32 of shape \(3,\), but must be int32 of shape \(2,\)"),
        (tf.constant([1, 2], tf.int64), r"int64 of shape \(2,\)"),
    ],
)
def test_a_wrong_seed_is_refused(value, message):
    with pytest.raises(ValueError, match=message), scopes.stochastic_scope(value):
        pass


def test_a_wrong_rate_is_refused():
    with pytest.raises(ValueError, match=r"dropout_rate is 1.0, but must be in \[0, 1\)"):
        scopes.stochastic_scope(seed(1, 2), dropout_rate=1.0).__enter__()
