"""What a new run starts from (``train.ft_init_ckpt``, and only a new one), and which part of that it trains."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.state import create_state, initialize
from effnetv2_keras.weights import WeightsError
from tests.made_runs import make_run
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.tiny import TINY
from tests.training.test_loop import array_splits
from tests.weights.filled import assert_same_weights, named_weights, tiny

STILL = f"{ONE_STAGE},train.epochs=1,train.lr_base=1e-12"


def new_state(config, strategy=None, num_classes=5):
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    return create_state(
        config.with_network(TINY), strategy, num_classes=num_classes, steps_per_epoch=3.0, total_steps=12
    )


@pytest.fixture
def saved(tmp_path):
    model = tiny(seed=1)
    model.save_weights(tmp_path / "saved.weights.h5")
    return model


def test_the_model_and_its_average_start_from_the_file(saved, tmp_path, two_replicas):
    config = tiny_config(f"train.ft_init_ckpt={tmp_path}/saved.weights.h5")
    state = new_state(config, two_replicas)
    report = initialize(state, config)
    assert len(report.loaded) == len(saved.weights)
    assert_same_weights(state.model, saved)
    assert_same_weights(state.ema_model, saved)


def test_a_classifier_for_other_classes_is_a_new_one_in_model_and_average(saved, tmp_path):
    config = tiny_config(f"train.ft_init_ckpt={tmp_path}/saved.weights.h5")
    state, untouched = new_state(config, num_classes=3), new_state(tiny_config(), num_classes=3)
    initialize(state, config)
    assert_same_weights(state.ema_model, state.model)
    ours, fresh, filled = map(named_weights, (state.model, untouched.model, saved))
    for name, value in ours.items():
        expected = fresh if name.startswith("classifier/") else filled
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("use_ema", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_another_run_gives_its_averages_or_its_weights(use_ema, tmp_path):
    run = make_run(tmp_path / "run")
    config = tiny_config(f"train.ft_init_ckpt={run},train.ft_init_ema={use_ema}")
    state = new_state(config, num_classes=6)
    initialize(state, config)
    assert_same_weights(state.model, load_trained(run, use_ema=use_ema).model)


def test_without_the_setting_nothing_is_loaded():
    state = new_state(tiny_config())
    before = named_weights(state.model)
    assert initialize(state, tiny_config("train.ft_init_ckpt=none")) is None
    for name, value in named_weights(state.model).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_run_loads_them_once_says_so_and_does_not_need_them_to_go_on(saved, tmp_path):
    config = tiny_config(f"train.ft_init_ckpt={tmp_path}/saved.weights.h5,{STILL}")
    output = io.StringIO()
    train_tiny(config, tmp_path / "run", spec=TINY, splits=array_splits(), output=output)
    total = len(saved.weights)
    assert output.getvalue().count(f"Loaded {total - 2} of {total} weights from") == 1
    assert "Left at their initial values: classifier/kernel (32, 5) in the file, (32, 3) in" in output.getvalue()
    trained = named_weights(load_trained(tmp_path / "run", which="latest", use_ema=False).model)
    for name, value in named_weights(saved).items():
        if not name.startswith("classifier/") and "moving_" not in name:
            np.testing.assert_allclose(trained[name], value, atol=1e-6, err_msg=name)
    (tmp_path / "saved.weights.h5").unlink()
    output = io.StringIO()
    train_tiny(config, tmp_path / "run", spec=TINY, splits=array_splits(), output=output)
    assert "Loaded" not in output.getvalue()


@pytest.mark.slow
def test_weights_that_do_not_fit_leave_the_folder_free(saved, tmp_path):
    with pytest.raises(WeightsError, match="no file, folder or checkpoint"):
        train_tiny(
            tiny_config(f"train.ft_init_ckpt={tmp_path}/nothing"), tmp_path / "run", spec=TINY, splits=array_splits()
        )
    assert not (tmp_path / "run").exists()
    config = tiny_config(f"train.ft_init_ckpt={tmp_path}/saved.weights.h5,{STILL}")
    train_tiny(config, tmp_path / "run", spec=TINY, splits=array_splits())


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ("train.trainable_from=block_4", {"block_4", "head", "classifier"}),
        pytest.param("train.trainable_layers=block_0|classifier", {"block_0", "classifier"}, marks=pytest.mark.slow),
        pytest.param("train.freeze_bn=true", None, marks=pytest.mark.slow),
    ],
)
def test_a_run_changes_only_what_it_is_to_train(settings, layers, saved, tmp_path):
    """Weights, BatchNorm statistics and their averages."""
    config = tiny_config(f"{ONE_STAGE},{settings},train.ft_init_ckpt={tmp_path}/saved.weights.h5,train.epochs=1")
    train_tiny(config, tmp_path / "run", spec=TINY, splits=array_splits())
    for use_ema in (False, True):
        trained = load_trained(tmp_path / "run", which="latest", use_ema=use_ema)
        before = named_weights(saved)
        changed = {
            name for name, value in named_weights(trained.model).items() if not np.array_equal(value, before[name])
        }
        if layers:
            assert {name.split("/")[0] for name in changed} == layers
            assert any(name.endswith("moving_mean") for name in changed)
        else:
            assert changed == {name for name in before if "norm" not in name}


def test_a_layer_that_is_not_there_is_refused_before_the_folder_is_taken(tmp_path):
    with pytest.raises(
        UsageError, match="trainable_from is 'block_99', which is not a layer of 'tiny'; did you mean 'bl"
    ):
        train_tiny(tiny_config("train.trainable_from=block_99"), tmp_path / "run", spec=TINY, splits=array_splits())
    assert not (tmp_path / "run").exists()
