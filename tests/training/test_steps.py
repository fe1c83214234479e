import functools
import gc
import logging
import weakref

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import devices
from effnetv2_keras.models.keras_compat import path_of, sublayers, tf_variables
from effnetv2_keras.optim import losses
from effnetv2_keras.optim.clipping import clip_gradients, norms_of
from effnetv2_keras.optim.optimizers import DECOUPLED, OPTIMIZERS
from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.state import create_state
from effnetv2_keras.training.steps import TrainStep
from tests.names import values_of
from tests.short_runs import tiny_config
from tests.tiny import SMALL

BATCH = 8


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 24, 24, 3)).astype(np.uint8)
    labels = tf.one_hot(rng.integers(0, 3, BATCH), 3)
    return {"image": tf.constant(images), "label": labels, "weight": tf.ones([BATCH])}


def distributed(strategy, batch):
    """Deals one global batch out to the replicas, in order."""
    share = BATCH // strategy.num_replicas_in_sync

    def value(context):
        own = slice(context.replica_id_in_sync_group * share, (context.replica_id_in_sync_group + 1) * share)
        return {name: tensor[own] for name, tensor in batch.items()}

    return strategy.experimental_distribute_values_from_function(value)


class Run:
    """A tiny state and the step of one stage, ready to call."""

    def __init__(self, strategy_name="cpu", changes="", *, freeze_bn=False, stage=0, spec=SMALL):
        self.strategy = make_strategy(strategy_name)
        config = tiny_config(changes)
        self.state = create_state(
            config.with_network(spec), self.strategy, num_classes=3, steps_per_epoch=3, total_steps=12
        )
        if freeze_bn:
            for layer in (*sublayers(self.state.model), *sublayers(self.state.ema_model)):
                if isinstance(layer, tf.keras.layers.BatchNormalization):
                    layer.trainable = False
        self.step = TrainStep(self.state, self.strategy, config=config, stage=config.progressive.plan(12)[stage])

    def __call__(self, batch):
        return {name: float(value) for name, value in self.step(distributed(self.strategy, batch)).items()}

    def weights(self):
        return [weight.numpy() for weight in self.state.model.weights]


pytestmark = pytest.mark.usefixtures("graphs_as_traced")  # the tests of whole runs have it optimised

FAST_OPTIMIZERS = ("rmsprop", "adamw", "lamb")
"""One with coupled and one with decoupled weight decay, and LAMB; the others are swept in the slow tests."""


def swept(*values):
    """A case of a sweep over optimizers, slow unless it is of ``FAST_OPTIMIZERS``."""
    return pytest.param(*values, marks=[] if values[0] in FAST_OPTIMIZERS else pytest.mark.slow)


NO_RANDOMNESS = "model.survival_prob=1,progressive.dropout_rate.start=0,progressive.dropout_rate.end=0"


# With plain SGD the change of a weight is the gradient, so equal weights mean equal gradients. Where the gradient is
# nothing but rounding, Adam and LAMB step its sign: hence a small learning rate, and a tolerance far below one step.
@pytest.mark.parametrize(
    ("optimizer", "rate", "more"),
    [
        pytest.param("sgd", 3, "", marks=pytest.mark.slow),
        pytest.param(
            "sgd",
            3,
            ",train.gclip=0.1,train.weight_decay_inc=5,train.varsexp=stem|block_0/.*/conv|head|classifier",
            marks=pytest.mark.slow,
        ),
        pytest.param("rmsprop", 3, "", marks=pytest.mark.slow),
        pytest.param("adamw", 0.1, ",train.weight_decay_inc=5,train.gclip=0.1", marks=pytest.mark.slow),
        ("lamb", 0.1, ",train.weight_decay_inc=5,train.gclip=0.1"),
    ],
)
def test_two_replicas_equal_one(optimizer, rate, more):
    changes = (
        f"{NO_RANDOMNESS},train.optimizer={optimizer},train.lr_warmup_epoch=0,train.lr_base={rate},"
        f"train.weight_decay=0.01{more}"
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


PLAIN = (
    f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=3,train.weight_decay=0.01,"
    "train.weight_decay_inc=5"
)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("mirrored", 2),
        pytest.param("cpu", 4, marks=pytest.mark.slow),
        pytest.param("cpu", 2, marks=pytest.mark.slow),
        pytest.param("mirrored", 4, marks=pytest.mark.slow),
    ],
)
def test_accumulated_equals_whole(strategy, parts):
    """Two replicas of four images each, at most four parts: the same loss, gradients and weights.

    Classes have weights, and the loss is their sum over the whole batch, divided by its size.
    """

    def weighted(seed):
        batch = make_batch(seed)
        return {**batch, "weight": losses.mean_weight(batch["label"], (0.25, 0.5, 3.0))}

    whole = Run("cpu", PLAIN, freeze_bn=True)
    divided = Run(strategy, f"{PLAIN},train.accumulation_steps={parts}|1", freeze_bn=True)
    before, batch, state = whole.weights(), weighted(0), whole.state
    labels, logits = batch["label"].numpy() * 0.9 + 0.1 / 3, state.model(batch["image"], training=False).numpy()
    entropy = np.log(np.exp(logits).sum(-1)) - (labels * logits).sum(-1)
    penalty = 0.01 * sum(np.sum(variable.numpy() ** 2) / 2 for variable in state.decayed)
    expected = np.sum(batch["weight"].numpy() * entropy) / BATCH + penalty
    for seed in range(3):
        first = whole(weighted(seed))
        assert first == pytest.approx(divided(weighted(seed)), rel=1e-5)
        assert seed or first["loss"] == pytest.approx(expected, rel=1e-4)
    for expected, value in zip(whole.weights(), divided.weights()):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    moved = [np.abs(after - start).max() for start, after in zip(before, whole.weights())]
    assert sum(change > 1e-3 for change in moved) > len(whole.state.model.trainable_variables) / 2
    for expected, value in zip(whole.state.ema_model.weights, divided.state.ema_model.weights):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_micro_batches_are_really_smaller_and_moving_averages_keep_their_pace():
    """Two parts alike: each moves the averages half as far, so that both together do what the whole batch does.

    Of two parts that differ, BatchNorm, not frozen, sees one at a time: its statistics are not those of all eight.
    """
    half = make_batch()
    twice = {name: tf.concat([value[:4], value[:4]], 0) for name, value in half.items()}
    whole, divided = (Run("cpu", f"{PLAIN},train.accumulation_steps={parts}") for parts in (1, 2))
    before = {path_of(weight): weight.numpy() for weight in whole.state.model.weights if "moving_mean" in weight.name}
    for run in (whole, divided):
        run(twice)
    means = [values_of(run.state.model) for run in (whole, divided)]
    moved = [np.abs(means[0][name] - start).max() for name, start in before.items()]
    assert sum(change > 1e-3 for change in moved) > len(moved) / 2
    for name in before:
        np.testing.assert_allclose(means[1][name], means[0][name], rtol=1e-3, atol=1e-5, err_msg=name)
    divided.state.model.set_weights(whole.weights())
    losses = [run(half)["loss"] for run in (whole, divided)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_synchronised_micro_batches_are_refused_on_replicas():
    Run("cpu", "train.sync_bn=true,train.accumulation_steps=2")
    with pytest.raises(
        UsageError, match="sync_bn=true cannot be combined with train.accumulation_steps=2 on 2 replicas"
    ):
        Run("mirrored", "train.sync_bn=true,train.accumulation_steps=2")


def test_each_micro_batch_draws_its_own_masks():
    run = Run(
        "cpu", "model.survival_prob=1,progressive.dropout_rate.start=0.5,train.accumulation_steps=2", freeze_bn=True
    )
    same = {name: tf.concat([value[:4], value[:4]], 0) for name, value in make_batch().items()}
    drawn = []
    compute = run.step._compute

    def spy(*arguments):
        sums = compute(*arguments)
        tf.py_function(lambda loss: drawn.append(float(loss)), [sums[1]["loss"]], [])
        return sums

    run.step._compute = spy
    run(same)
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("strategy", ["cpu", "mirrored"])
def test_accumulation_that_does_not_divide_is_refused(strategy):
    with pytest.raises(UsageError, match="accumulation_steps=3 does not divide the . images that each of . replicas"):
        Run(strategy, "train.accumulation_steps=3")


@pytest.mark.parametrize("strategy", [pytest.param("cpu", marks=pytest.mark.slow), "mirrored"])
def test_several_steps_on_the_device_equal_single_ones(strategy):
    single, looped = Run(strategy), Run(strategy)
    batches = [make_batch(seed) for seed in range(5)]
    rows = [single(batch) for batch in batches]

    def input_fn(context):
        dataset = tf.data.Dataset.from_tensor_slices(
            {name: tf.stack([b[name] for b in batches]) for name in batches[0]}
        )
        return dataset.unbatch().batch(BATCH // context.num_replicas_in_sync, drop_remainder=True)

    iterator = iter(looped.strategy.distribute_datasets_from_function(input_fn))
    metrics = [looped.step.several(iterator, count) for count in (3, 2)]
    for name in rows[0]:
        np.testing.assert_array_equal(
            np.concatenate([part[name].numpy() for part in metrics]), np.float32([row[name] for row in rows])
        )
    np.testing.assert_equal(looped.weights(), single.weights())
    assert looped.state.finished_steps == 5
    assert looped.step.traces == looped.strategy.num_replicas_in_sync


def test_replicas_keep_the_same_statistics_and_hear_of_a_stop():
    run = Run("mirrored")
    for seed in range(2):
        run(make_batch(seed))
    for model in run.state.models.values():
        for weight in tf_variables(model.weights):
            first, second = (copy.numpy() for copy in run.strategy.experimental_local_results(weight))
            np.testing.assert_array_equal(first, second, err_msg=weight.name)
    stops = [float(run.step(distributed(run.strategy, make_batch()), stop)["stops"]) for stop in (False, True)]
    assert stops == [0.0, 2.0]
    assert run.step.traces == 2
    assert run.state.finished_steps == 4


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


@pytest.mark.parametrize("strategy", [pytest.param("cpu", marks=pytest.mark.slow), "mirrored"])
def test_one_trace_serves_images_of_every_size(strategy):
    """And the same numbers come out as from a graph for one size, with the dropout of each stage."""
    run, static = Run(strategy, "progressive.stages=3"), Run(strategy, "progressive.stages=3")
    static.step._any_size = False
    stages = tiny_config("progressive.stages=3").progressive.plan(12)
    assert len({stage.dropout_rate for stage in stages}) == 3
    for stage in stages:
        assert run.step.serves(stage)
        run.step.stage = static.step.stage = stage
        for seed in range(2):
            batch = {**make_batch(seed), "image": make_batch(seed)["image"][:, : stage.image_size, : stage.image_size]}
            assert run(batch) == pytest.approx(static(batch), rel=1e-5)
    assert run.step.traces == run.strategy.num_replicas_in_sync
    assert static.step.traces == 3 * run.strategy.num_replicas_in_sync
    assert run.state.finished_steps == 6


def test_a_step_serves_only_stages_that_compute_alike():
    config = tiny_config("progressive.stages=3,train.accumulation_steps=1|1|2")
    stages = config.progressive.plan(12)
    step = Run("cpu", "progressive.stages=3,train.accumulation_steps=1|1|2").step
    assert [step.serves(stage) for stage in stages] == [True, True, False]
    for settings in ("precision.jit_compile=true", "runtime.steps_per_loop=2"):
        step = Run("cpu", f"progressive.stages=3,{settings}").step
        assert [step.serves(stage) for stage in stages] == [True, False, False]


def test_l2_adds_the_gradient_of_the_kernels_only_and_grows_over_the_run():
    """The gradient of the penalty is the weight times its strength, which is 0.1 * (1 + 3 * step / 12)."""
    changes = f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=32,train.lr_sched=constant"
    plain, decayed = (Run("cpu", f"{changes},train.weight_decay={w},train.weight_decay_inc=3") for w in (0, 0.1))
    rate = 1.0  # 32 * 8 / 256
    for step in (0, 8):
        decayed.state.model.set_weights(plain.weights())
        for run in (plain, decayed):
            run.state.step.assign(step)
        before = {path_of(variable): variable.numpy() for variable in plain.state.model.trainable_variables}
        loss_plain, loss_decayed = plain(make_batch())["loss"], decayed(make_batch())["loss"]
        strength, kernels = 0.1 * (1 + 3 * step / 12), 0
        for free, held in zip(plain.state.model.trainable_variables, decayed.state.model.trainable_variables):
            kernel = "kernel" in free.name
            kernels += kernel
            pull = rate * strength * before[path_of(free)] * kernel
            np.testing.assert_allclose(free.numpy() - held.numpy(), pull, atol=2e-5)
        assert kernels > 5
        penalty = sum(0.5 * np.sum(value**2) for name, value in before.items() if "kernel" in name)
        assert loss_decayed - loss_plain == pytest.approx(strength * penalty, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("lamb", marks=pytest.mark.slow)])
def test_decoupled_weight_decay_is_not_in_the_loss_as_well(optimizer):
    """If it were, the kernels would decay twice."""
    changes = f"{NO_RANDOMNESS},train.optimizer={optimizer}"
    free, decayed = (Run("cpu", f"{changes},train.weight_decay={w}") for w in (0, 0.5))
    decayed.state.model.set_weights(free.weights())
    batch = make_batch()
    assert decayed(batch) == free(batch)  # loss and norm of the gradient


@functools.cache
def gradients_of(changes):
    """The change of each trainable variable in one step of SGD with a learning rate of one: minus the gradient."""
    run = Run("cpu", f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.lr_base=32,{changes}")
    before = [variable.numpy() for variable in run.state.model.trainable_variables]
    figures = run(make_batch())
    return [old - new.numpy() for old, new in zip(before, run.state.model.trainable_variables)], figures


def test_clipping_cuts_each_gradient_and_then_all():
    free, _ = gradients_of("train.gclip=0")
    limit = float(np.median([np.linalg.norm(gradient) for gradient in free]))
    clipped, _ = gradients_of(f"train.gclip={limit}")
    gradients = [tf.constant(gradient) for gradient in free]
    for mine, other in zip(clipped, clip_gradients(gradients, norms_of(gradients), limit)):
        np.testing.assert_allclose(mine, other, atol=2e-6)
    globally, _ = tf.clip_by_global_norm(gradients, limit)
    assert max(np.abs(mine - other.numpy()).max() for mine, other in zip(clipped, globally)) > 1e-3


@pytest.mark.parametrize(
    "optimizer",
    ["sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(DECOUPLED))],
)
def test_excluded_variables_do_not_decay(optimizer):
    changes = f"{NO_RANDOMNESS},train.optimizer={optimizer},train.lr_warmup_epoch=0,train.lr_base=0.1"
    free, all_but_stem, all_of_it = (
        Run("cpu", f"{changes},train.weight_decay={w},train.weight_decay_exclude={exclude}")
        for w, exclude in ((0, "none"), (0.5, "stem|block|head"), (0.5, "none"))
    )
    for run in (free, all_but_stem, all_of_it):
        for variable in run.state.model.trainable_variables:
            variable.assign(variable + 0.5)  # a weight of zero would not decay
        run(make_batch())
    same = {"free": [], "all_but_stem": []}
    for ours, other, every in zip(*(run.state.model.trainable_variables for run in (free, all_but_stem, all_of_it))):
        if optimizer == "lamb" and not path_of(ours).startswith("classifier"):
            continue  # excluded from the scaling too, and so no comparison
        excluded = not path_of(ours).startswith("classifier")
        assert np.allclose(ours, other, rtol=0, atol=1e-6) == excluded, path_of(ours)
        assert not np.allclose(ours, every, rtol=0, atol=1e-6), path_of(ours)
        same["free" if excluded else "all_but_stem"].append(path_of(ours))
    assert len(same["all_but_stem"]) == 2


@pytest.mark.parametrize("optimizer", map(swept, sorted(OPTIMIZERS)))
def test_only_the_chosen_variables_move_but_all_statistics_do(optimizer):
    chosen = "stem/conv|classifier"
    changes = f"{NO_RANDOMNESS},train.optimizer={optimizer},train.lr_warmup_epoch=0,train.weight_decay=0.1"
    run = Run("cpu", f"{changes},train.varsexp={chosen}")
    before, average = run.weights(), [weight.numpy() for weight in run.state.ema_model.weights]
    run(make_batch())
    moved = {path_of(w) for w, old in zip(run.state.model.weights, before) if not np.array_equal(w, old)}
    statistics = {path_of(w) for w in run.state.model.weights if "moving" in w.name}
    assert moved - statistics == {"stem/conv/kernel", "classifier/kernel", "classifier/bias"}
    assert statistics <= moved
    averaged = {path_of(w) for w, old in zip(run.state.ema_model.weights, average) if not np.array_equal(w, old)}
    assert averaged == moved


def test_loss_and_average_cover_the_variables_that_do_not_move():
    changes = "train.weight_decay=0.1"
    _, every = gradients_of(changes)
    gradients, some = gradients_of(f"{changes},train.varsexp=classifier")
    assert some["loss"] == pytest.approx(every["loss"])
    assert some["gradient_norm"] < every["gradient_norm"]
    assert some["gradient_norm"] == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in gradients)), rel=1e-4)


def test_expression_that_matches_everything_changes_nothing():
    (one, _), (two, _) = (gradients_of(f"train.weight_decay=0.1{more}") for more in ("", ",train.varsexp=.*"))
    for left, right in zip(one, two):
        np.testing.assert_array_equal(left, right)


def test_expression_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match="train.varsexp is 'blocks_', which matches none of the 27 trainable"):
        Run("cpu", "train.varsexp=blocks_")


def test_clipping_bounds_the_whole_gradient():
    (_, free), (moved, clipped) = (gradients_of(f"train.gclip={limit}") for limit in (0, 0.01))
    assert clipped["gradient_norm"] == pytest.approx(free["gradient_norm"])
    assert np.sqrt(sum(np.sum(change**2) for change in moved)) == pytest.approx(0.01, rel=1e-3)
    assert free["gradient_norm"] > 0.01


LOSS_TYPES = ("softmax", "sigmoid", "custom,train.label_smoothing=0")


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_unreadable_image_adds_nothing(loss_type):
    """A weight of zero must leave the loss and the gradients of the other images alone."""
    batch = make_batch()
    batch["label"] = tf.concat([batch["label"][:7], tf.zeros([1, 3])], 0)
    batch["weight"] = tf.constant([1.0] * 7 + [0.0])
    other = {**batch, "image": tf.concat([batch["image"][:7], 255 - batch["image"][7:]], 0)}
    settings = f"{NO_RANDOMNESS},train.optimizer=sgd,train.lr_warmup_epoch=0,train.loss_type={loss_type}"
    run = Run("cpu", settings, freeze_bn=True)
    variables = [*run.state.model.weights, *run.state.optimizer.variables, run.state.step]
    before = [variable.numpy() for variable in variables]
    loss, weights = run(batch)["loss"], run.weights()
    assert not np.array_equal(weights[0], before[0])
    for variable, value in zip(variables, before):
        variable.assign(value)
    assert run(other)["loss"] == pytest.approx(loss, rel=1e-6)
    for left, right in zip(weights, run.weights()):
        np.testing.assert_allclose(left, right, atol=1e-7)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_images_of_several_labels_and_of_none_are_learnt(loss_type):
    batch = make_batch()
    labels = np.zeros([BATCH, 3], np.float32)
    labels[:3, :2], labels[3:6, 2] = 1, 1  # the last two have none
    batch["label"] = tf.constant(labels)
    settings = f"train.loss_type={loss_type},train.weight_decay=0"
    run = Run("cpu", f"{NO_RANDOMNESS},{settings},train.optimizer=adam,train.lr_base=0.1,train.lr_sched=constant")
    first = run(batch)["loss"]
    last = [run(batch) for _ in range(40)][-1]
    assert last["loss"] < 0.7 * first
    assert last["top1"] == pytest.approx(6 / 8)  # those without a label have no hit


@pytest.mark.parametrize(
    ("optimizer", "policy"),
    [("rmsprop", "mixed_bfloat16"), *(swept(name, "mixed_float16") for name in sorted(OPTIMIZERS))],
)
def test_mixed_precision_trains_in_float32_weights_and_skips_what_overflows(optimizer, policy):
    rate = 0.2 if optimizer.startswith("adam") or optimizer == "lamb" else 1
    run = Run(
        "cpu",
        f"precision.policy={policy},train.optimizer={optimizer},train.lr_base={rate},train.lr_warmup_epoch=0,"
        "train.gclip=1",
    )
    losses = [run(make_batch())["loss"] for _ in range(6)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert {variable.dtype for variable in tf_variables(run.state.model.weights)} == {tf.float32}
    assert tf.as_dtype(run.state.model.output.dtype) == tf.float32
    if policy == "mixed_float16":
        assert_overflow_skips_the_step_and_lowers_the_scale(run)


def assert_overflow_skips_the_step_and_lowers_the_scale(run):
    scale = run.state.optimizer.loss_scale.current_loss_scale
    initial, before = float(scale), run.weights()
    scale.assign(2.0**120)
    run(make_batch())
    trainable = {path_of(variable) for variable in run.state.model.trainable_variables}
    for variable, start in zip(run.state.model.weights, before):
        if path_of(variable) in trainable:
            np.testing.assert_array_equal(variable.numpy(), start)
    assert float(scale) == 2.0**119
    assert initial > 1


@pytest.mark.parametrize(
    ("optimizer", "policy"),
    [
        *(pytest.param(name, "float32", marks=[pytest.mark.slow] * (name != "lamb")) for name in sorted(OPTIMIZERS)),
        ("adamw", "mixed_float16"),  # for RMSProp whole runs do it
        pytest.param("lamb", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_restored_equals_uninterrupted_bit_for_bit(optimizer, policy, tmp_path):
    changes = (
        f"train.optimizer={optimizer},precision.policy={policy},train.weight_decay=0.1,train.weight_decay_inc=2,"
        "train.gclip=1,train.varsexp=stem|block_1|classifier,train.lr_base=0.5"
    )
    whole, restored = Run("cpu", changes), Run("cpu", changes)
    for seed in range(3):
        whole(make_batch(seed))
    Checkpoints(whole.state, RunFolder(tmp_path), keep=1).save()
    for seed in range(3, 5):
        whole(make_batch(seed))
    assert Checkpoints(restored.state, RunFolder(tmp_path), keep=1).restore_latest() == 3
    middle = restored.weights()
    for seed in range(3, 5):
        restored(make_batch(seed))
    for mine, other, name in zip(restored.weights(), whole.weights(), (w.name for w in whole.state.model.weights)):
        np.testing.assert_array_equal(mine, other, err_msg=name)
    for mine, other in zip(restored.state.ema_model.weights, whole.state.ema_model.weights):
        np.testing.assert_array_equal(mine, other, err_msg=mine.name)
    assert not np.array_equal(middle[0], restored.weights()[0])


NOT_FOR_TPUS = {
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "Where", "Unique", "UniqueV2", "DynamicPartition", "ListDiff",
}  # fmt: skip
"""Operations in Python, and those whose result's shape depends on values."""


@pytest.mark.slow
def test_every_stage_compiles_with_xla_on_every_replica():
    """TPUs compile the same step: it has static shapes and no Python in it, in micro-batches too."""
    run = Run("mirrored", "precision.jit_compile=true,progressive.stages=3,train.accumulation_steps=1|2|4")
    config = tiny_config("precision.jit_compile=true,progressive.stages=3,train.accumulation_steps=1|2|4")
    for stage in config.progressive.plan(12):
        step = TrainStep(run.state, run.strategy, config=config, stage=stage)
        rng = np.random.default_rng(stage.index)
        images = rng.integers(0, 256, (BATCH, stage.image_size, stage.image_size, 3)).astype(np.uint8)
        batch = distributed(run.strategy, {**make_batch(), "image": tf.constant(images)})
        losses = [float(step(batch)["loss"]) for _ in range(2)]
        assert np.isfinite(losses).all()
        assert step.traces == 2
        rest = (tf.constant(0.1, tf.float64), tf.constant(False, tf.float32))
        definition = step._function.get_concrete_function(batch, *rest).graph.as_graph_def()
        functions = [definition.node, *(function.node_def for function in definition.library.function)]
        found = {node.op for nodes in functions for node in nodes}
        assert "Conv2D" in found
        assert not found & NOT_FOR_TPUS


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


@pytest.mark.parametrize("on_cpu", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_finished_stage_frees_its_graph_and_none_warns(monkeypatch, caplog, on_cpu):
    monkeypatch.setattr(devices, "on_cpu", lambda: on_cpu)
    graphs = []

    class NotingStep(TrainStep):
        def _replica_step(self, *arguments):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return super()._replica_step(*arguments)

    run = Run()
    config = tiny_config()
    with caplog.at_level(logging.WARNING):
        for _ in range(6):  # TensorFlow warns from the fifth trace on
            NotingStep(run.state, run.strategy, config=config, stage=config.progressive.plan(12)[0])(make_batch())
    gc.collect()
    assert len(graphs) == 6
    assert not [graph() for graph in graphs if graph()]
    assert "retracing" not in caplog.text
