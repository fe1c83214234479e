"""What a run does when something goes wrong in it."""

from __future__ import annotations

import io
import logging
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.distribution.strategy import Worker, explained_losses, make_strategy
from effnetv2_keras.errors import Interrupted, TrainingDiverged, WorkerLost
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.input import Watchdog
from effnetv2_keras.training.steps import TrainStep
from tests.images import write_classes
from tests.short_runs import ONE_STAGE, UNCHANGED, computed_rows, tiny_config, train_tiny
from tests.training.test_loop import array_splits, assert_equal_runs, final_weights, stop_at


def poison(monkeypatch, *steps, where):
    """Makes the loss of the run's calls of these numbers NaN, through the batch or through the weights."""
    call, count = TrainStep.__call__, [0]

    def poisoned(self, batch, *rest):
        count[0] += 1
        if count[0] in steps and where == "data":
            batch = {**batch, "weight": batch["weight"] * float("nan")}
        if count[0] in steps and where == "weights":
            variable = self._state.model.trainable_variables[-1]
            variable.assign(variable * float("nan"))
        return call(self, batch, *rest)

    monkeypatch.setattr(TrainStep, "__call__", poisoned)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("cpu", "mirrored"), ("mirrored", "cpu")])
def test_a_run_goes_on_with_another_number_of_replicas(tmp_path, monkeypatch, first, then):
    """With the same images in the same order, and so the same weights but for rounding (BatchNorm frozen)."""
    config = tiny_config(
        "train.freeze_bn=true,train.optimizer=sgd,model.survival_prob=1,progressive.dropout_rate.start=0,"
        "progressive.dropout_rate.end=0"
    )
    train_tiny(config, tmp_path / "whole", splits=array_splits(), strategy=make_strategy(first))
    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_tiny(config, tmp_path / "run", splits=array_splits(), strategy=make_strategy(first))
    train_tiny(config, tmp_path / "run", splits=array_splits(), strategy=make_strategy(then))
    whole, run = final_weights(tmp_path / "whole"), final_weights(tmp_path / "run")
    assert whole.keys() == run.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(run[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("where", ["data", pytest.param("weights", marks=pytest.mark.slow)])
def test_not_a_number_stops_the_run(tmp_path, monkeypatch, where):
    poison(monkeypatch, 7, where=where)
    with pytest.raises(TrainingDiverged, match="loss is nan at step 7 .*last good checkpoint is .*ckpt-6.*=rollback"):
        train_tiny(tiny_config(UNCHANGED), tmp_path / "run", splits=array_splits())
    assert tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")).endswith("ckpt-6")
    assert all(np.isfinite(value).all() for value in final_weights(tmp_path / "run").values())


def test_a_gradient_that_is_not_finite_counts_too(tmp_path, monkeypatch):
    """The loss of that step is still a number, and the weights that come of it must not be saved."""
    step = TrainStep._step

    def steep(self, *inputs):
        metrics = step(self, *inputs)
        return {**metrics, "gradient_norm": tf.where(self._state.step == 4, float("inf"), metrics["gradient_norm"])}

    monkeypatch.setattr(TrainStep, "_step", steep)
    with pytest.raises(TrainingDiverged, match="norm of the gradient is inf at step 4"):
        train_tiny(tiny_config(ONE_STAGE), tmp_path / "run", splits=array_splits())
    assert tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")).endswith("ckpt-0")


@pytest.mark.parametrize("where", ["data", pytest.param("weights", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_rollback_goes_on_from_the_last_good_checkpoint_more_slowly(plain, tmp_path, monkeypatch, where):
    config = tiny_config(f"{UNCHANGED},runtime.nan_policy=rollback,runtime.rollback_lr_factor=0.25,runtime.log_every=1")
    output = io.StringIO()
    with monkeypatch.context() as patch:
        poison(patch, 8, where=where)
        train_tiny(config, tmp_path / "run", splits=array_splits(), output=output)
    assert "The loss is nan at step 8" in output.getvalue()
    assert "Going back to step 6 with 0.25 times the learning rate (rollback 1 of at most 3)" in output.getvalue()
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    (rollback,) = (row for row in rows if row["kind"] == "rollback")
    assert (rollback["step"], rollback["lr_scale"]) == (6, 0.25)
    usual, rates = (
        {row["step"]: row["lr"] for row in RunFolder(folder).metrics() if row["kind"] == "train"}
        for folder in (plain, tmp_path / "run")
    )
    assert list(usual) == [3, 4, 6, 8, 9, 12]
    for step, rate in usual.items():
        assert rates[step] == pytest.approx(rate * (1 if step <= 6 else 0.25))


@pytest.mark.slow
def test_an_interrupted_run_remembers_its_rollbacks(tmp_path, monkeypatch):
    config = tiny_config("runtime.nan_policy=rollback,runtime.max_rollbacks=2")
    poison(monkeypatch, 8, where="data")
    train_tiny(config, tmp_path / "whole", splits=array_splits())
    monkeypatch.undo()
    poison(monkeypatch, 8, where="data")
    stop_at(monkeypatch, 11, lambda: signal.raise_signal(signal.SIGTERM))  # the third step after going back
    with pytest.raises(Interrupted):
        train_tiny(config, tmp_path / "run", splits=array_splits())
    monkeypatch.undo()
    train_tiny(config, tmp_path / "run", splits=array_splits())
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_too_many_rollbacks_stop_the_run(tmp_path, monkeypatch):
    poison(monkeypatch, *range(8, 100), where="data")
    config = tiny_config(f"{UNCHANGED},runtime.nan_policy=rollback,runtime.max_rollbacks=2")
    output = io.StringIO()
    with pytest.raises(TrainingDiverged, match="loss is nan at step 7"):
        train_tiny(config, tmp_path / "run", splits=array_splits(), output=output)
    assert output.getvalue().count("Going back to step 6") == 2
    assert "0.25 times the learning rate (rollback 2 of at most 2)" in output.getvalue()


@pytest.mark.slow
def test_data_that_turn_out_unusable_cost_nothing_that_was_trained(tmp_path):
    """An image that is cut short in the middle of an epoch; the run goes on once it is whole again."""
    paths = write_classes(tmp_path / "images" / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(tmp_path / "images" / "val", {"red": 5, "green": 4, "blue": 4}, seed=1)
    config = tiny_config(UNCHANGED, data_dir=str(tmp_path / "images"))
    train_tiny(config, tmp_path / "whole")
    whole, steps = {path: path.read_bytes() for path in paths}, []
    call = TrainStep.__call__

    def cut_short(self, *arguments):
        steps.append(1)
        if len(steps) == 2:
            for path, content in whole.items():
                path.write_bytes(content[: len(content) // 2])
        return call(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", cut_short)
        with pytest.raises(DataError, match=r"Cannot decode .*\nSaved .*ckpt-\d+; after the repair, the same command"):
            train_tiny(config, tmp_path / "run")
    saved = int(final_weights(tmp_path / "run")["step/.ATTRIBUTES/VARIABLE_VALUE"])
    assert saved == len(steps) >= 2
    for path, content in whole.items():
        path.write_bytes(content)
    train_tiny(config, tmp_path / "run")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_steps_per_loop_changes_nothing_but_the_pace(plain, tmp_path):
    """The graph of a loop knows the size of the images, so the last bit of a gradient may be rounded otherwise."""
    train_tiny(tiny_config("runtime.steps_per_loop=4"), tmp_path / "run", splits=array_splits())
    single, looped = (final_weights(folder) for folder in (plain, tmp_path / "run"))
    assert single.keys() == looped.keys()
    for name, value in single.items():
        np.testing.assert_allclose(looped[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    rows = [computed_rows(folder) for folder in (plain, tmp_path / "run")]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_stalled_input_is_reported(caplog):
    with caplog.at_level(logging.WARNING), Watchdog(0.2) as watchdog:
        with watchdog.waiting_for("the batch of step 1"):
            time.sleep(0.7)
        reported = len(caplog.records)
        with watchdog.waiting_for("the batch of step 2"):
            time.sleep(0.05)
        time.sleep(0.4)
    assert 2 <= reported <= 4
    assert len(caplog.records) == reported
    assert "input is stalled: waiting for the batch of step 1 for 0 s" in caplog.text


@pytest.mark.slow
def test_loss_scaling_skips_a_step_but_not_all(tmp_path, monkeypatch):
    step, bad = TrainStep._step, [12]

    def steep(self, *inputs):
        metrics = step(self, *inputs)
        skipped = tf.reduce_any(tf.equal(tf.cast(self._state.step, tf.int32), bad))
        return {**metrics, "gradient_norm": tf.where(skipped, float("inf"), metrics["gradient_norm"])}

    monkeypatch.setattr(TrainStep, "_step", steep)
    config = tiny_config(
        f"{ONE_STAGE},precision.policy=mixed_float16,train.epochs=8,eval.every_epochs=8,runtime.log_every=24,"
        "runtime.checkpoint_every=100"
    )
    train_tiny(config, tmp_path / "run", splits=array_splits())
    (row,) = (row for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "train")
    assert 0 < row["gradient_norm"] < float("inf")
    bad[:] = range(25)
    with pytest.raises(TrainingDiverged, match="The last 24 gradients were not finite, the newest at step 24"):
        train_tiny(config, tmp_path / "lost", splits=array_splits())


def test_a_lost_peer_does_not_start_a_run_again_that_was_asked_to_end(tmp_path, monkeypatch):
    def gone(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        raise tf.errors.UnavailableError(None, None, "Connection reset by peer")

    monkeypatch.setattr(TrainStep, "__call__", gone)
    with pytest.raises(Interrupted, match="SIGTERM: stopped, and nothing is lost. The same command resumes the run"):
        train_tiny(tiny_config(UNCHANGED), tmp_path / "run", splits=array_splits())


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (tf.errors.UnavailableError(None, None, "Socket closed"), WorkerLost),
        (tf.errors.CancelledError(None, None, ""), WorkerLost),
        (tf.errors.InternalError(None, None, "Collective ops is aborted"), WorkerLost),
        (tf.errors.InternalError(None, None, "ptxas failed on /job:worker/task:0"), tf.errors.InternalError),
    ],
)
def test_what_counts_as_a_lost_worker(error, becomes):
    with pytest.raises(becomes), explained_losses(Worker(0, 2)):
        raise error
    with pytest.raises(type(error)), explained_losses(Worker()):
        raise error
