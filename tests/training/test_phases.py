"""Fine-tuning in phases: the classifier alone, then all layers at their own rates, until nothing gets better."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.models.checkpointed import checkpointed as parts_of
from effnetv2_keras.models.keras_compat import path_of, tf_variables
from effnetv2_keras.optim.base import LayerRate
from effnetv2_keras.optim.optimizers import make_optimizer
from effnetv2_keras.optim.schedules import WarmupSchedule, WeightDecay
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.selection import classifier_variables, layer_rates
from effnetv2_keras.training.state import create_state, schedule_for, with_batch_norm_decided
from effnetv2_keras.training.steps import TrainStep
from tests.names import values_of
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.tiny import SMALL, TINY
from tests.training.test_loop import array_splits
from tests.training.test_steps import distributed, make_batch

HEAD = "train.head_share=0.25,train.optimizer=adamw,data.augment=none"


def planned(changes=""):
    return tiny_config(f"{HEAD},{changes}").plan(12)


def test_the_first_stage_trains_the_classifier_with_the_settings_of_the_next():
    head, *others = planned()
    assert (head.trains, head.first_step, head.end_step) == ("classifier", 0, 3)  # one of four epochs
    assert {stage.trains for stage in others} == {"all"}
    assert [(stage.index, stage.first_step, stage.end_step) for stage in others] == [(1, 3, 7), (2, 7, 12)]
    assert (head.image_size, head.dropout_rate) == (others[0].image_size, others[0].dropout_rate)
    assert tiny_config("data.augment=none").plan(12)[0].trains == "all"


def test_micro_batches_of_a_stage_are_counted_without_the_stage_of_the_classifier():
    config = tiny_config(f"{HEAD},train.accumulation_steps=2|4")
    assert [config.micro_batches(stage) for stage in config.plan(12)] == [2, 2, 4]


def test_the_warm_up_starts_after_the_stage_of_the_classifier():
    config = tiny_config(f"{HEAD},train.lr_base=0.32,train.head_lr_base=0.64,train.epochs=8,train.head_share=0.125")
    schedule = schedule_for(config, steps_per_epoch=3, total_steps=24)
    rates = schedule(np.arange(25)).numpy()
    np.testing.assert_allclose(rates[:3], 0.02)  # 0.64 * 8 / 256
    whole = schedule_for(config.override({"train.head_share": 0, "train.epochs": 7}), steps_per_epoch=3, total_steps=21)
    np.testing.assert_allclose(rates[3:], whole(np.arange(22)), rtol=1e-6)
    assert rates[-1] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("train.head_share=1", "head_share.*less than 1"),
        ("train.first_layer_lr=0.1", "first_layer_lr is 0.1, which works with the optimizers adam and adamw"),
        ("train.head_share=0.1,train.optimizer=lamb", "head_share does not work with optimizer=lamb"),
        ("train.head_lr_base=0", "head_lr_base.*greater than 0"),
        ("train.patience=0", "patience"),
    ],
)
def test_phases_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(changes)


def constant(rate):
    return WarmupSchedule("constant", rate, 100, 0, 1.0, 1.0, 0.0)


class Phases:
    """A tiny state, and a step of each stage of its plan."""

    def __init__(self, strategy_name="cpu", changes="", network=None):
        self.strategy = make_strategy(strategy_name)
        config = tiny_config(f"{HEAD},train.weight_decay=0.1,{changes}")
        config = config.override({"model.model_name": network}) if network else config.with_network(SMALL)
        self.state = create_state(config, self.strategy, num_classes=3, steps_per_epoch=3, total_steps=12)
        self.steps = [TrainStep(self.state, self.strategy, config=config, stage=stage) for stage in config.plan(12)]

    def take(self, stage, count=1):
        for seed in range(count):
            self.steps[stage](distributed(self.strategy, make_batch(seed)))

    def weights(self):
        return values_of(self.state.model)


@pytest.mark.parametrize(
    ("strategy_name", "changes"),
    [("cpu", ""), pytest.param("mirrored", "train.accumulation_steps=2", marks=pytest.mark.slow)],
)
def test_only_the_classifier_moves_in_its_stage(strategy_name, changes, request):
    if strategy_name == "mirrored":
        request.getfixturevalue("two_replicas")
    phases = Phases(strategy_name, changes)
    before = phases.weights()
    phases.take(0, 2)
    after = phases.weights()
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {"classifier/kernel", "classifier/bias"}  # no statistics of BatchNorm either
    phases.take(1)
    everything = phases.weights()
    still = {name for name in before if (after[name] == everything[name]).all()}
    assert not [name for name in still if "kernel" in name or "moving" in name]


def test_only_the_classifier_of_a_keras_network_moves_in_its_stage():
    phases = Phases(network="keras:tests.own_networks:tiny")
    before = phases.weights()
    phases.take(0)
    after = phases.weights()
    last = path_of(phases.state.model.trainable_variables[-1]).split("/")[0]
    assert {name.split("/")[0] for name in before if (before[name] != after[name]).any()} == {last}


def test_a_layer_that_starts_later_takes_the_step_of_a_fresh_optimizer():
    """The bias of Adam's averages is corrected from the first update of a variable, not from the first step."""
    decay = WeightDecay(0.0)

    def updated(first_step, before):
        variable = tf.Variable([1.0, 2.0])
        other = tf.Variable([0.0])
        optimizer = make_optimizer("adamw", schedule=constant(0.01), weight_decay=decay)
        optimizer.build([variable, other])
        optimizer.set_layer_rates([(variable, LayerRate(1.0, first_step))])
        for _ in range(before):
            optimizer.apply_gradients([(tf.ones([1]), other)])
        for gradient in ([0.5, -3.0], [0.1, 0.2]):
            optimizer.apply_gradients([(tf.constant(gradient), variable), (tf.ones([1]), other)])
        return variable.numpy()

    np.testing.assert_array_equal(updated(7, 7), updated(0, 0))
    assert np.abs(updated(0, 7) - updated(0, 0)).max() > 0.005  # several times larger updates


def test_the_rate_grows_by_the_same_factor_from_layer_to_layer():
    model = build_model(TINY, num_classes=3)
    rates = layer_rates(model, first_layer=0.01, head_steps=5)
    assert [id(variable) for variable, _ in rates] == [id(v) for v in tf_variables(model.trainable_variables)]
    shares = list(dict.fromkeys(rate.share for _, rate in rates))
    assert (shares[0], shares[-1]) == (pytest.approx(0.01), 1.0)
    np.testing.assert_allclose(np.array(shares[1:]) / shares[:-1], shares[1] / shares[0])
    assert len(shares) == len([layer for layer in model.layers if layer.trainable_variables])
    head = {id(variable) for variable in classifier_variables(model)}
    assert {rate.first_step for variable, rate in rates if id(variable) in head} == {0}
    assert {rate.first_step for variable, rate in rates if id(variable) not in head} == {5}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_share_of_the_rate_scales_update_and_decay(name):
    def moved(share):
        variable = tf.Variable([1.0, -2.0])
        optimizer = make_optimizer(name, schedule=constant(0.1), weight_decay=WeightDecay(0.3))
        optimizer.build([variable])
        optimizer.set_layer_rates([(variable, LayerRate(share))])
        optimizer.apply_gradients([(tf.constant([0.5, 4.0]), variable)])
        return variable.numpy() - [1.0, -2.0]

    np.testing.assert_allclose(moved(0.25), 0.25 * moved(1.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("batch", "parts", "replicas", "frozen"), [(32, 1, 1, False), (32, 1, 4, True), (32, 4, 1, True), (8, 1, 1, True)]
)
def test_batch_norm_is_frozen_where_a_replica_has_few_images_at_a_time(batch, parts, replicas, frozen):
    changes = {"train.batch_size": batch, "train.accumulation_steps": parts, "train.freeze_bn": None}
    config = Config().override({**changes, "train.ft_init_ckpt": "imagenet"})
    assert with_batch_norm_decided(config, replicas).train.freeze_bn is frozen
    scratch = Config().override(changes)
    assert with_batch_norm_decided(scratch, replicas).train.freeze_bn is False
    fixed = config.override({"train.freeze_bn": not frozen})
    assert with_batch_norm_decided(fixed, replicas) is fixed


def test_a_classifier_that_is_kept_fixed_cannot_train_alone():
    with pytest.raises(UsageError, match=r"train.head_share trains only the classifier, but train.varsexp"):
        Phases(changes="train.varsexp=stem")


def test_a_run_ends_when_it_no_longer_gets_better_and_its_best_weights_count(tmp_path, monkeypatch):
    """Of twelve evaluations the second is the best; the run ends after three more, and can only be finished again."""
    told = io.StringIO()
    accuracies = iter([0.2, 0.5, 0.4, 0.5, 0.1, 0.9])
    real = Evaluator.run

    def run(self, on_step=None):
        return {**real(self, on_step), "top1_ema": next(accuracies)}

    monkeypatch.setattr(Evaluator, "run", run)
    config = tiny_config(f"{ONE_STAGE},eval.every_epochs=0.34,train.patience=3")
    result = train_tiny(config, tmp_path / "run", splits=array_splits(), output=told)
    steps = [row["step"] for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "eval"]
    assert len(steps) == 5
    assert result["step"] == steps[-1] < 12
    assert f"The last 3 evaluations were no better than that of step {steps[1]}" in told.getvalue()
    assert load_trained(tmp_path / "run").step == steps[1]
    again = train_tiny(config, tmp_path / "run", splits=array_splits())
    assert (again["step"], next(accuracies)) == (steps[-1], 0.9)  # no evaluation was needed


@pytest.mark.slow
def test_both_phases_train_a_run_from_the_weights_of_another(tmp_path):
    """The command line's recipe in small: a run, a second one from its weights, resumed in the stage of the head."""
    first = tiny_config(f"{ONE_STAGE},train.epochs=2,train.optimizer=adamw,train.lr_base=0.05")
    train_tiny(first, tmp_path / "first", splits=array_splits())
    source = load_trained(tmp_path / "first").model.get_weights()
    changes = (
        f"{HEAD},train.first_layer_lr=0.1,train.lr_base=0.05,train.ft_init_ckpt={tmp_path / 'first'},train.epochs=3"
    )
    config = tiny_config(f"{changes},progressive.stages=1,runtime.checkpoint_every=2,runtime.keep_checkpoint_max=20")
    train_tiny(config, tmp_path / "second", splits=array_splits())
    assert checkpointed(tmp_path / "second", 2, source) == {"classifier/kernel", "classifier/bias"}
    assert len(checkpointed(tmp_path / "second", 9, source)) == len(source)


def checkpointed(run, step, source):
    """Names of the weights of a checkpoint that differ from ``source``."""
    trained = load_trained(run)
    checkpoint = tf.train.Checkpoint(model=parts_of(trained.model))
    checkpoint.restore(str(run / "checkpoints" / f"ckpt-{step}")).expect_partial()
    return {path_of(weight) for weight, value in zip(trained.model.weights, source) if (weight.numpy() != value).any()}
