"""What the recorder makes of the steps that loss scaling skips."""

import io

import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import TrainingDiverged
from effnetv2_keras.reporting.recorder import Recorder
from effnetv2_keras.runs.run_folder import RunFolder
from tests.short_runs import ONE_STAGE, tiny_config

OVERFLOW = float("inf")


def record(tmp_path, norms, *, flush_after, log_every=100):
    """Records a run with these gradient norms; returns its rows and what it prints."""
    config = tiny_config(f"{ONE_STAGE},precision.policy=mixed_float16,runtime.log_every={log_every}")
    output, stages = io.StringIO(), config.plan(len(norms))
    console = rich.console.Console(file=output, width=200)
    recorder = Recorder(
        config, RunFolder(tmp_path), stages, make_strategy("cpu"), steps_per_epoch=3.0, lr=lambda _: tf.constant(0.1),
        console=console,
    )  # fmt: skip
    recorder.go_on_from(0)
    recorder.enter(stages[0], 0)
    for step, norm in enumerate(norms):
        metrics = {"loss": tf.constant(1.0), "top1": tf.constant(0.5), "gradient_norm": tf.constant(norm)}
        recorder.record(stages[0], step, 1, metrics)
        if step + 1 in flush_after:  # as a checkpoint or an evaluation does
            recorder.flush(stages[0])
    return recorder.log.rows, output.getvalue()


def test_skipped_steps_are_counted_over_windows(tmp_path):
    with pytest.raises(TrainingDiverged, match="The last 21 gradients were not finite, the newest at step 24"):
        record(tmp_path, [1.0] * 3 + [OVERFLOW] * 27, flush_after=range(12, 30, 12), log_every=6)


def test_a_run_without_any_applied_step_ends_with_an_error(tmp_path):
    with pytest.raises(TrainingDiverged, match="All 12 gradients overflowed and no weight changed.* at step 12"):
        record(tmp_path, [OVERFLOW] * 12, flush_after=(5,), log_every=4)


def test_skipped_steps_are_told(tmp_path):
    rows, output = record(tmp_path, [OVERFLOW, OVERFLOW, OVERFLOW, 2.0], flush_after=(2,))
    assert [row["skipped_steps"] for row in rows] == [2, 1]
    assert "gradient_norm" not in rows[0]
    assert rows[1]["gradient_norm"] == 2.0
    assert "2 steps skipped" in output
