"""Real training processes, killed at chosen moments and gone on with: the end is as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.architecture import variants
from effnetv2_keras.cli import EXIT_INTERRUPTED
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options
from effnetv2_keras.modes.train import run_config
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.loop import train
from hparams import load
from tests.short_runs import SETTINGS, UNCHANGED, computed_rows, train_tiny, undrawn
from tests.tiny import SMALL
from tests.tiny_main import MOMENTS, STARTS
from tests.training.test_loop import assert_equal_runs, final_weights

KILLS = [(moment, name) for moment in MOMENTS for name in ("SIGKILL", "SIGTERM")]


def start(image_folder, model_dir, *flags, kill="", changes=""):
    command = [
        sys.executable, "-m", "tests.tiny_main", "--model_name=tiny", f"--data_dir={image_folder}",
        f"--model_dir={model_dir}", f"--hparam_str={SETTINGS}{changes}", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": ".", "KILL": kill, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def end(process):
    try:
        output, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def run(*arguments, **keywords):
    return end(start(*arguments, **keywords))


@pytest.fixture(scope="module", autouse=True)
def tiny_among_the_models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.MODELS, "tiny", SMALL)
        yield


def train_here(config, folder):
    """Trains in this process, which has TensorFlow imported already, what ``start`` would in one of its own."""
    with undrawn():
        train(config, folder, strategy=make_strategy("cpu"), console=rich.console.Console(quiet=True))


@pytest.fixture(scope="module")
def uninterrupted(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_here(load("folder", "tiny").override(parse_overrides(f"data.data_dir={image_folder},{SETTINGS}")), folder)
    return folder


def evaluations(folder):
    return [row for row in computed_rows(folder) if row["kind"] == "eval"]


def assert_same_end(left, right):
    assert_equal_runs(left, right)
    assert evaluations(left) == evaluations(right)
    assert [row["step"] for row in evaluations(left)] == [6, 12]
    assert json.loads((left / "best" / "best.json").read_text()) == json.loads(
        (right / "best" / "best.json").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "name"), KILLS)
def test_a_killed_run_goes_on_bit_for_bit(image_folder, uninterrupted, tmp_path, moment, name):
    status, output = run(image_folder, tmp_path / "run", kill=f"{moment}:{name}")
    assert status == (-signal.SIGKILL if name == "SIGKILL" else EXIT_INTERRUPTED), output
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    if name == "SIGKILL":
        expected = {"warm_up": 0, "mid_stage": 4, "checkpoint": 4, "border": 4, "evaluation": 6}
    else:
        assert "The same command resumes" in output
        expected = {"warm_up": 2, "mid_stage": 5, "checkpoint": 6, "border": 6, "evaluation": 6}
    assert latest.endswith(f"ckpt-{expected[moment]}")
    alone = Options(model_dir=str(tmp_path / "run"))  # as --mode=train --model_dir=run, without any other flag
    train_here(run_config(Invocation(alone, None, (), load)), tmp_path / "run")
    assert_same_end(uninterrupted, tmp_path / "run")
    before, after = (tf.train.load_checkpoint(path) for path in (latest, str(tmp_path / "run" / "checkpoints")))
    assert (
        before.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") < 12 == after.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE")
    )


def two_addresses():
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("localhost", 0))
        return ",".join(f"localhost:{one.getsockname()[1]}" for one in (first, second))


def start_workers(image_folder, folder, *flags, kill="", victim=1, **keywords):
    """Two workers, of which one is killed."""
    flags = ("--strategy=multiworker", f"--workers={two_addresses()}", *flags)
    return [
        start(image_folder, folder, *flags, f"--worker_index={index}", kill=kill if index == victim else "", **keywords)
        for index in (0, 1)
    ]


@pytest.fixture(scope="module")
def uninterrupted_workers(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers") / "run"
    workers = [end(process) for process in start_workers(image_folder, folder)]
    assert [status for status, _ in workers] == [0, 0], workers
    return folder


@pytest.mark.parametrize("others", [("workers",), pytest.param(("workers", "mirrored"), marks=pytest.mark.slow)])
def test_two_workers_equal_two_replicas_equal_one_device(image_folder, tmp_path, others):
    """Every weight and average after a whole run with random crops and two stages, BatchNorm frozen.

    Without mixup, for which each worker pairs its own images.
    """
    changes = (
        f",{UNCHANGED},train.freeze_bn=true,model.survival_prob=1,progressive.dropout_rate.start=0,progressive.dropout_rate.end=0,"
        "progressive.mixup_alpha.end=0,train.optimizer=sgd,train.lr_base=3,train.accumulation_steps=1|2"
    )
    workers = [end(process) for process in start_workers(image_folder, tmp_path / "workers", changes=changes)]
    assert [status for status, _ in workers] == [0, 0], workers
    assert "evaluated 13 of 13 images" in workers[0][1]
    assert "evaluated" not in workers[1][1]
    config = RunFolder(tmp_path / "workers").config()
    for name in ("cpu", *others[1:]):
        train_tiny(config, tmp_path / name, strategy=make_strategy(name))
    start, one = (
        tf.train.load_checkpoint(str(tmp_path / "cpu" / "checkpoints" / name)) for name in ("ckpt-0", "ckpt-12")
    )
    moved = 0
    for other in others:
        left, right = final_weights(tmp_path / "cpu"), final_weights(tmp_path / other)
        assert left.keys() == right.keys()
        for name, value in left.items():
            np.testing.assert_allclose(right[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{other}: {name}")
            moved += np.abs(one.get_tensor(name) - start.get_tensor(name)).max() > 1e-3
        assert [row["num_images"] for row in evaluations(tmp_path / other)] == [13, 13]
    assert moved > 20


def start_again(process):
    """The same command, without the signal."""
    environment = {**os.environ, "PYTHONPATH": ".", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(process.args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "victim"), [*((moment, 1) for moment in MOMENTS), ("mid_stage", 0)])
def test_a_killed_worker_comes_back_and_all_go_on(image_folder, uninterrupted_workers, tmp_path, moment, victim):
    """The other one starts again by itself and waits for it."""
    workers = start_workers(image_folder, tmp_path / "run", kill=f"{moment}:SIGKILL", victim=victim)
    assert end(workers[victim])[0] == -signal.SIGKILL
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert int(latest.rpartition("-")[2]) < 12
    workers[victim] = start_again(workers[victim])
    ended = [end(process) for process in workers]
    assert [status for status, _ in ended] == [0, 0], ended
    assert "Another of the 2 workers has ended" in ended[1 - victim][1]
    assert_same_end(uninterrupted_workers, tmp_path / "run")


@pytest.mark.slow
def test_without_rejoining_the_others_end_too(image_folder, uninterrupted_workers, tmp_path):
    first, second = start_workers(image_folder, tmp_path / "run", "--norejoin", kill="mid_stage:SIGKILL")
    assert end(second)[0] == -signal.SIGKILL
    status, output = end(first)
    assert status == EXIT_INTERRUPTED, output
    assert "Another of the 2 workers has ended" in output
    again = [end(process) for process in start_workers(image_folder, tmp_path / "run")]
    assert [status for status, _ in again] == [0, 0], again
    assert_same_end(uninterrupted_workers, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_to_one_worker_stops_all_at_one_step(image_folder, uninterrupted_workers, tmp_path, moment):
    stopped = [end(process) for process in start_workers(image_folder, tmp_path / "run", kill=f"{moment}:SIGTERM")]
    assert [status for status, _ in stopped] == [EXIT_INTERRUPTED] * 2, stopped
    latest = tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints"))
    assert 0 < int(latest.rpartition("-")[2]) < 12
    again = [end(process) for process in start_workers(image_folder, tmp_path / "run")]
    assert [status for status, _ in again] == [0, 0], again
    assert_same_end(uninterrupted_workers, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", [*STARTS, "mid_stage", "evaluation", "border"])
def test_a_signal_is_answered_at_once_and_the_process_ends_soon(image_folder, tmp_path, moment, name):
    process = start(image_folder, tmp_path / "run", kill=f"{moment}:{name}")
    answered = None
    for line in process.stdout:
        if line.startswith("Stopping"):
            answered = time.monotonic()
    assert process.wait(60) == EXIT_INTERRUPTED
    assert answered is not None
    assert time.monotonic() - answered < 45  # a step, a checkpoint and 15 s, on a machine that does much else
    if (tmp_path / "run" / "metrics.jsonl").exists():
        assert [row for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "eval"] == []
