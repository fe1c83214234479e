"""The loop's parts, each on its own: strategies, evaluation, metrics, progress, signals."""

import io
import json
import signal

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import eval_input
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.distribution.strategy import STRATEGIES, Devices, StrategyError, make_strategy
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting import progress
from effnetv2_keras.reporting.metrics_log import FIELDS, MetricsLog
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError, write_atomically
from effnetv2_keras.runs.trained import load_trained
from effnetv2_keras.training.evaluation import Evaluator
from effnetv2_keras.training.interruption import stop_on_signal
from tests.data.test_pipeline import make_plan


def make_stages():
    return [Stage(0, 0, 10, 16, 5, 0, 0, 0.1), Stage(1, 10, 20, 32, 10, 0, 0, 0.2)]


def test_strategies():
    assert make_strategy("cpu").num_replicas_in_sync == 1
    assert make_strategy("mirrored").num_replicas_in_sync == 2  # the tests' two logical devices
    assert make_strategy("auto").num_replicas_in_sync == 1
    with pytest.raises(StrategyError, match="Unknown strategy 'gpu'; use one of: auto, cpu, mirrored, tpu"):
        make_strategy("gpu")
    with pytest.raises(StrategyError, match=r"no TPU answers at '' \(zone z, project .*Name one with --tpu"):
        make_strategy("tpu", Devices(tpu_zone="z"))
    assert set(STRATEGIES) == {"auto", "cpu", "mirrored", "tpu", "multiworker"}


@pytest.mark.parametrize(
    ("environment", "devices", "message"),
    [
        ("", Devices(), "has no list of workers. Describe the workers in the environment variable TF_CONFIG"),
        ("{", Devices(), r"Cannot read TF_CONFIG='\{'"),
        ('{"cluster": {"worker": ["a:1"]}}', Devices(), "Cannot read TF_CONFIG=.*KeyError"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            Devices(),
            r"\('worker', 1\), which is not among \[\('worker', 0\)\]",
        ),
        ("", Devices(workers=("a:1", "b:2"), worker_index=2), "--worker_index=2 is not the position of one of the 2"),
        ("", Devices(workers=("a:1", "b")), "--workers has 'b'; write addresses as host:port"),
    ],
)
def test_workers_that_cannot_be_found(monkeypatch, environment, devices, message):
    monkeypatch.setenv("TF_CONFIG", environment)
    with pytest.raises(StrategyError, match=message):
        make_strategy("multiworker", devices)


@pytest.mark.parametrize("strategy_name", ["cpu", "mirrored"])
def test_evaluator_counts_and_scores(strategy_name):
    """A model whose logits are the first pixel's distance to each class: its scores are known."""
    strategy = make_strategy(strategy_name)
    count = 13
    labels = np.arange(count) % 7
    shown = np.where(np.arange(count) < 9, labels, (labels + 1) % 7)  # the last four look like the next class
    images = (shown * 10).astype(np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    source = ArraySource(images, labels, [str(number) for number in range(7)])
    with strategy.scope():
        inputs = tf.keras.Input([8, 8, 3])
        distance = tf.keras.layers.Lambda(lambda x: -tf.abs(x[:, 0, 0, :1] - tf.range(0.0, 70.0, 10.0)))
        model = tf.keras.Model(inputs, distance(tf.keras.layers.Rescaling(1.0)(inputs)))
    evaluator = Evaluator(
        {"": model, "_ema": model},
        strategy,
        input_fn=eval_input(source, make_plan(4, eval_crop=1.0), image_size=8),
        num_examples=count,
        batch_size=4,
    )
    seen = []
    result = evaluator.run(lambda done, steps: seen.append((done, steps)))
    assert result["num_images"] == count
    assert result["top1"] == pytest.approx(9 / count)
    assert result["top5"] == 1.0
    logits = -np.abs(shown[:, None] * 10.0 - np.arange(0, 70, 10))
    expected = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(count), labels].mean()
    assert result["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert result["top1_ema"] == result["top1"]
    assert seen[-1] == (4, 4)


def test_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run: there is no config.yaml"):
        load_trained(tmp_path)
    write_atomically(tmp_path / "config.yaml", Config().to_yaml())
    write_atomically(tmp_path / "data.json", json.dumps({"class_names": ["a", "b"], "num_train": 8, "num_eval": 8}))
    with pytest.raises(RunFolderError, match="has no checkpoint yet. Train first"):
        load_trained(tmp_path)
    write_atomically(tmp_path / "config.yaml", Config().to_yaml().replace("\n  epochs:", "\n  epoch:"))
    with pytest.raises(RunFolderError, match="config.yaml cannot be read: Unknown hparam 'train.epoch'"):
        load_trained(tmp_path)


def test_metrics_of_steps_to_be_repeated_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder, step=0, tensorboard=True)
    for step in (5, 10, 15):
        log.add({"kind": "train", "step": step, "loss": 1.0 / step, "seconds": float(step)})
    assert list(tmp_path.glob("events.out.tfevents.*"))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # cut short by a crash
    resumed = MetricsLog(folder, step=10, tensorboard=False)
    assert [row["step"] for row in resumed.rows] == [5, 10]
    assert resumed.seconds == 10.0
    resumed.add({"kind": "eval", "step": 12, "top1": 0.5, "seconds": 12.0})
    assert resumed.last_evaluation()["top1"] == 0.5
    assert [row["step"] for row in folder.metrics()] == [5, 10, 12]
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.split(",") == list(FIELDS)
    assert [line.split(",")[:2] for line in lines] == [["train", "5"], ["train", "10"], ["eval", "12"]]


def test_durations_are_readable():
    assert progress.format_seconds(3725.4) == "1:02:05"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_what_matters(terminal):
    output = io.StringIO()
    console = rich.console.Console(file=output, force_terminal=terminal, width=200)
    bar = progress.Progress(make_stages(), console)
    row = {"step": 5, "loss": 1.25, "lr": 0.016, "images_per_second": 123.4}
    with bar.shown():
        bar.advance(make_stages()[0], 5)
        bar.train_row(make_stages()[0], row, 90.0)
    for text in ("stage 1/2", "16 px", "5/20", "123 images/s", "loss 1.250", "lr 0.016", "0:01:30 left"):
        assert text in output.getvalue()


def test_progress_shows_no_speed_where_it_is_unknown():
    output = io.StringIO()
    bar = progress.Progress(make_stages(), rich.console.Console(file=output, width=200))
    row = {"step": 1, "loss": 1.25, "lr": 0.016, "images_per_second": 0.0}
    with bar.shown():
        bar.train_row(make_stages()[0], row, None)
    assert "loss 1.250" in output.getvalue()
    assert "images/s" not in output.getvalue()
    assert "left" not in output.getvalue()


@pytest.mark.usefixtures("interruptible")
def test_first_signal_is_a_request_the_second_acts():
    with stop_on_signal() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
