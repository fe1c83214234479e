import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.training.steps import TrainStep
from tests.short_runs import tiny_config
from tests.training.test_steps import NO_RANDOMNESS, Run, make_batch

SGD = "train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=3,train.weight_decay=0.01"
TWICE = "runtime.rematerialize=true"


pytestmark = pytest.mark.usefixtures("graphs_as_traced")  # so that both ways have the same operations


def statistics(model):
    """The moving averages of every replica, float32 ``[replicas, ...]`` each."""
    moving = tf_variables(weight for weight in model.weights if "moving" in weight.name)
    return [np.stack([value.numpy() for value in getattr(weight, "values", [weight])]) for weight in moving]


# The learning rate makes of each change of a weight three times its gradient.
@pytest.mark.parametrize("more", ["", pytest.param(f",{TWICE}", marks=pytest.mark.slow)])
def test_two_replicas_with_synchronized_statistics_equal_one(more):
    one = Run("cpu", f"{NO_RANDOMNESS},{SGD}")
    two = Run("mirrored", f"{NO_RANDOMNESS},{SGD},train.sync_bn=true{more}")
    before = one.weights()
    for seed in range(2):
        left, right = one(make_batch(seed)), two(make_batch(seed))
        assert left == pytest.approx(right, rel=1e-5)
    for start, single, mirrored in zip(before, one.weights(), two.weights()):
        np.testing.assert_allclose(single, mirrored, rtol=1e-5, atol=1e-5)
        assert not np.array_equal(single, start)
    for single, mirrored in zip(statistics(one.state.model), statistics(two.state.model)):
        assert len(mirrored) == 2
        for replica in mirrored:
            np.testing.assert_allclose(replica, single[0], rtol=1e-5, atol=1e-6)


def test_by_default_each_replica_has_statistics_of_its_own():
    """The variance of a half is not that of the whole: the mean of both, which all keep, is another."""
    kept = []
    for changes in ("", ",train.sync_bn=true"):
        run = Run("mirrored", f"{NO_RANDOMNESS},model.bn_momentum=0.5{changes}")
        run(make_batch())
        kept.append([weight.numpy() for weight in run.state.model.weights if "moving_variance" in weight.name])
    assert any(not np.allclose(own, together, rtol=1e-3) for own, together in zip(*kept))


@pytest.mark.slow
def test_synchronized_statistics_are_float32_and_alike_under_16_bits():
    run = Run("mirrored", "train.sync_bn=true,precision.policy=mixed_bfloat16")
    losses = [run(make_batch())["loss"] for _ in range(3)]
    assert losses[-1] < losses[0]
    for first, last in statistics(run.state.model):
        np.testing.assert_array_equal(first, last)
        assert not np.array_equal(first, tf.cast(tf.cast(first, tf.bfloat16), tf.float32))


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("cpu", "precision.policy=float32"),
        pytest.param("cpu", "precision.jit_compile=true", marks=pytest.mark.slow),
        pytest.param("cpu", "train.trainable_from=block_1,train.freeze_bn=true", marks=pytest.mark.slow),
        pytest.param("mirrored", "train.sync_bn=true,precision.policy=mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("cpu", "precision.policy=mixed_float16,train.varsexp=block_1|classifier", marks=pytest.mark.slow),
    ],
)
def test_computing_blocks_twice_changes_no_number(strategy, more):
    kept, twice = (Run(strategy, f"{SGD},{more}{then}") for then in ("", f",{TWICE}"))
    for seed in range(2):
        assert kept(make_batch(seed)) == pytest.approx(twice(make_batch(seed)), rel=1e-6)
    for mine, other in zip(twice.weights(), kept.weights()):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)
    for mine, other in zip(statistics(twice.state.model), statistics(kept.state.model)):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


@pytest.mark.slow
def test_a_finished_stage_frees_its_graph():
    graphs = []

    class NotingStep(TrainStep):
        def _replica_step(self, *arguments):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return super()._replica_step(*arguments)

    changes = f"train.sync_bn=true,{TWICE}"
    run, config = Run("mirrored", changes), tiny_config(changes)
    run.step = NotingStep(run.state, run.strategy, config=config, stage=config.progressive.plan(12)[0])
    run(make_batch())
    run.step = None
    gc.collect()
    assert len(graphs) == 2
    assert not [graph() for graph in graphs if graph()]
