import gc
import logging
import weakref

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import layers
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep
from effnetv2_keras.training.strategy import make_strategy
from tests.short_runs import tiny_config
from tests.tiny import TINY

BATCH = 8


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 24, 24, 3)).astype(np.uint8)
    labels = tf.one_hot(rng.integers(0, 3, BATCH), 3)
    return {"image": tf.constant(images), "label": labels}


def distributed(strategy, batch):
    """Deals one global batch out to the replicas, in order."""
    share = BATCH // strategy.num_replicas_in_sync

    def value(context):
        own = slice(context.replica_id_in_sync_group * share, (context.replica_id_in_sync_group + 1) * share)
        return {name: tensor[own] for name, tensor in batch.items()}

    return strategy.experimental_distribute_values_from_function(value)


class Run:
    """A tiny state and the step of one stage, ready to call."""

    def __init__(self, strategy_name="cpu", changes="", *, freeze_bn=False, stage=0):
        self.strategy = make_strategy(strategy_name)
        config = tiny_config(changes)
        self.state = create_state(config, self.strategy, num_classes=3, steps_per_epoch=3, total_steps=12, spec=TINY)
        if freeze_bn:
            for layer in (*self.state.model.submodules, *self.state.ema_model.submodules):
                if isinstance(layer, tf.keras.layers.BatchNormalization):
                    layer.trainable = False
        self.step = TrainStep(self.state, self.strategy, config=config, stage=config.progressive.plan(12)[stage])

    def __call__(self, batch):
        return {name: float(value) for name, value in self.step(distributed(self.strategy, batch)).items()}

    def weights(self):
        return [weight.numpy() for weight in self.state.model.weights]


NO_RANDOMNESS = "model.survival_prob=1,progressive.dropout_rate.start=0,progressive.dropout_rate.end=0"


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_two_replicas_equal_one(optimizer):
    """With plain SGD the change of a weight is the gradient, so equal weights mean equal gradients."""
    changes = (
        f"{NO_RANDOMNESS},train.optimizer={optimizer},train.lr_warmup_epoch=0,train.lr_base=3,train.weight_decay=0.01"
    )
    one, two = (Run(name, changes, freeze_bn=True) for name in ("cpu", "mirrored"))
    before = one.weights()
    np.testing.assert_equal(two.weights(), before)
    for seed in range(3):
        left, right = one(make_batch(seed)), two(make_batch(seed))
        assert left == pytest.approx(right, rel=1e-5)
    for single, mirrored in zip(one.weights(), two.weights()):
        np.testing.assert_allclose(single, mirrored, rtol=1e-4, atol=1e-6)
    moved = [np.abs(after - start).max() for start, after in zip(before, one.weights())]
    assert sum(change > 1e-4 for change in moved) > len(one.state.model.trainable_variables) / 2
    for single, mirrored in zip(one.state.ema_model.weights, two.state.ema_model.weights):
        np.testing.assert_allclose(single.numpy(), mirrored.numpy(), rtol=1e-4, atol=1e-6)


def test_replicas_draw_different_dropout_masks():
    """Both replicas get the same images, so only the masks can make their logits differ."""
    run = Run("mirrored", "model.survival_prob=1,progressive.dropout_rate.start=0.5", freeze_bn=True)
    batch = make_batch()
    half = {name: tf.concat([value[:4], value[:4]], 0) for name, value in batch.items()}
    logits = []
    model_call = run.state.model.call

    def spy(*args, **kwargs):
        output = model_call(*args, **kwargs)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        tf.py_function(lambda r, x: logits.append((int(r), x.numpy())), [replica, output], [])
        return output

    run.state.model.call = spy
    run(half)
    by_replica = dict(logits)
    assert set(by_replica) == {0, 1}
    assert not np.allclose(by_replica[0], by_replica[1])


@pytest.mark.parametrize(("strategy", "replicas"), [("cpu", 1), ("mirrored", 2)])
def test_one_trace_per_stage_and_replica(strategy, replicas):
    run = Run(strategy)
    for seed in range(3):
        run(make_batch(seed))
    assert run.step.traces == replicas
    assert run.state.finished_steps == 3


def test_l2_adds_the_gradient_of_the_kernels_only():
    strength = 0.1
    plain, decayed = (
        Run(
            "cpu",
            f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=32,train.weight_decay={w}",
        )
        for w in (0, strength)
    )
    before = {variable.name: variable.numpy() for variable in plain.state.model.trainable_variables}
    loss_plain, loss_decayed = plain(make_batch())["loss"], decayed(make_batch())["loss"]
    rate = 1.0  # 32 * 8 / 256
    kernels = 0
    for free, held in zip(plain.state.model.trainable_variables, decayed.state.model.trainable_variables):
        kernel = "kernel" in free.name
        kernels += kernel
        pull = rate * strength * before[free.name] * kernel
        np.testing.assert_allclose(free.numpy() - held.numpy(), pull, atol=2e-5)
    assert kernels > 5
    penalty = sum(0.5 * np.sum(value**2) for name, value in before.items() if "kernel" in name)
    assert loss_decayed - loss_plain == pytest.approx(strength * penalty, rel=1e-4)


def test_clipping_bounds_the_whole_gradient():
    free, clipped = (
        Run("cpu", f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=32,train.gclip={limit}")
        for limit in (0, 0.01)
    )
    before = [variable.numpy() for variable in free.state.model.trainable_variables]
    norm = free(make_batch())["gradient_norm"]
    assert clipped(make_batch())["gradient_norm"] == pytest.approx(norm)
    moved = [after.numpy() - start for start, after in zip(before, clipped.state.model.trainable_variables)]
    assert np.sqrt(sum(np.sum(change**2) for change in moved)) == pytest.approx(0.01, rel=1e-3)
    assert norm > 0.01


def test_an_unreadable_image_adds_nothing():
    """A zero label row must leave the loss and the gradients of the other images alone."""
    batch = make_batch()
    batch["label"] = tf.concat([batch["label"][:7], tf.zeros([1, 3])], 0)
    other = {**batch, "image": tf.concat([batch["image"][:7], 255 - batch["image"][7:]], 0)}
    one, two = (Run("cpu", f"{NO_RANDOMNESS},train.optimizer=sgd", freeze_bn=True) for _ in range(2))
    assert one(batch)["loss"] == pytest.approx(two(other)["loss"], rel=1e-6)
    for left, right in zip(one.weights(), two.weights()):
        np.testing.assert_allclose(left, right, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_in_float32_weights(policy):
    run = Run("cpu", f"precision.policy={policy},train.lr_base=1,train.lr_warmup_epoch=0")
    losses = [run(make_batch())["loss"] for _ in range(6)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert {variable.dtype for variable in run.state.model.weights} == {tf.float32}
    assert run.state.model.output.dtype == tf.float32


def test_float16_overflow_skips_the_step_and_lowers_the_scale():
    run = Run("cpu", "precision.policy=mixed_float16")
    run(make_batch())
    scale, before = float(run.state.optimizer.loss_scale), run.weights()
    run.state.optimizer._loss_scale._current_loss_scale.assign(2.0**120)
    run(make_batch())
    trainable = {variable.name for variable in run.state.model.trainable_variables}
    for variable, start in zip(run.state.model.weights, before):
        if variable.name in trainable:
            np.testing.assert_array_equal(variable.numpy(), start)
    assert float(run.state.optimizer.loss_scale) == 2.0**119
    assert scale > 1


def test_step_compiles_with_xla():
    plain, compiled = Run("cpu", NO_RANDOMNESS), Run("cpu", f"{NO_RANDOMNESS},precision.jit_compile=true")
    for seed in range(2):
        assert compiled(make_batch(seed))["loss"] == pytest.approx(plain(make_batch(seed))["loss"], rel=1e-3)
    jitted = Run("cpu", "precision.jit_compile=true")  # and with dropout and stochastic depth
    assert np.isfinite(jitted(make_batch())["loss"])


def test_same_seed_same_run_other_seed_other_run():
    first, again, other = (Run("cpu", f"train.seed={seed}") for seed in (1, 1, 2))
    losses = [[run(make_batch(seed))["loss"] for seed in range(2)] for run in (first, again, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_stage_sets_the_dropout_rate():
    changes = "model.survival_prob=1,progressive.dropout_rate.start=0,progressive.dropout_rate.end=0.9"
    calm, strong = Run("cpu", changes, stage=0), Run("cpu", changes, stage=1)
    assert calm(make_batch())["loss"] != pytest.approx(strong(make_batch())["loss"], rel=1e-3)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_finished_stage_frees_its_graph_and_none_warns(monkeypatch, caplog, on_cpu):
    monkeypatch.setattr(layers, "_on_cpu", lambda: on_cpu)
    graphs = []

    class NotingStep(TrainStep):
        def _replica_step(self, batch):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return super()._replica_step(batch)

    run = Run()
    config = tiny_config()
    with caplog.at_level(logging.WARNING):
        for _ in range(6):  # TensorFlow warns from the fifth trace on
            NotingStep(run.state, run.strategy, config=config, stage=config.progressive.plan(12)[0])(make_batch())
    gc.collect()
    assert len(graphs) == 6
    assert not [graph() for graph in graphs if graph()]
    assert "retracing" not in caplog.text
