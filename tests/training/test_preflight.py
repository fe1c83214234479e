"""What a run finds out before its first step."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.preflight import MemoryShortageError, largest_stage
from effnetv2_keras.training.steps import TrainStep
from tests.images import write_classes
from tests.short_runs import UNCHANGED, tiny_config, train_tiny
from tests.training.test_loop import array_splits, assert_equal_runs


def test_preflight_changes_nothing_but_finds_out(plain, tmp_path):
    config = tiny_config("runtime.preflight=true,runtime.tensorboard=true")
    train_tiny(config, tmp_path / "run", splits=array_splits())
    assert_equal_runs(plain, tmp_path / "run")
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_preflight_tries_the_largest_stage(tmp_path, monkeypatch):
    """Before a single step of the first stage, whose images of 16 px fit."""
    sizes = []
    call = TrainStep.__call__

    def small_device(self, batch, *rest):
        sizes.append(self.stage.image_size)
        if self.stage.image_size > 16:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return call(self, batch, *rest)

    monkeypatch.setattr(TrainStep, "__call__", small_device)
    changes = f"{UNCHANGED},runtime.preflight=true,precision.policy=mixed_bfloat16"
    with pytest.raises(
        MemoryShortageError, match="Stage 2 does not fit in memory: 8 images of 24 px at a time on each "
    ):
        train_tiny(tiny_config(changes), tmp_path / "run", splits=array_splits())
    assert sizes == [24]
    with pytest.raises(MemoryShortageError, match="train.accumulation_steps=2, or one number for each of the 2 stages"):
        train_tiny(tiny_config(UNCHANGED), tmp_path / "late", splits=array_splits())
    assert sizes == [24, *[16] * 6, 24]
    assert tf.train.latest_checkpoint(str(tmp_path / "late" / "checkpoints")).endswith("ckpt-6")


HEAD_FIRST = f"{UNCHANGED},train.head_share=0.5,train.optimizer=adamw,runtime.preflight=true"
"""Changes for a run that first trains the classifier alone, then all layers in two stages."""


def test_a_stage_with_a_step_of_its_own_is_tried_after_the_first_step(tmp_path, monkeypatch):
    """So that the first step need not wait for its trace; the trial changes nothing."""
    taken = []
    call = TrainStep.__call__

    def noted(self, *arguments):
        taken.append((self.stage.trains, self.stage.image_size))
        return call(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", noted)
    train_tiny(tiny_config(HEAD_FIRST), tmp_path / "tried", splits=array_splits())
    steps, taken[:] = [*taken], []
    train_tiny(
        tiny_config(
            HEAD_FIRST,
        ).override({"runtime.preflight": False}),
        tmp_path / "plain",
        splits=array_splits(),
    )
    assert steps == [taken[0], *[("all", 24)] * 2, *taken[1:]]
    assert taken[0][0] == "classifier"
    assert_equal_runs(tmp_path / "tried", tmp_path / "plain")


def test_an_error_in_the_trial_after_the_first_step_leaves_the_state_of_that_step(tmp_path, monkeypatch):
    call = TrainStep.__call__

    def broken(self, batch, *rest):
        metrics = call(self, batch, *rest)
        if self.stage.trains == "all":
            raise DataError("A file is gone.")
        return metrics

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(DataError, match="Saved .*ckpt-1; after the repair"):
        train_tiny(tiny_config(HEAD_FIRST), tmp_path / "run", splits=array_splits())
    monkeypatch.setattr(TrainStep, "__call__", call)
    train_tiny(tiny_config(HEAD_FIRST), tmp_path / "run", splits=array_splits())
    train_tiny(tiny_config(HEAD_FIRST), tmp_path / "plain", splits=array_splits())
    assert_equal_runs(tmp_path / "run", tmp_path / "plain")


def test_preflight_finds_an_evaluation_image_that_is_broken(tmp_path):
    write_classes(tmp_path / "train", {"red": 8, "green": 8, "blue": 8})
    (broken, *_) = write_classes(tmp_path / "val", {"blue": 4, "green": 4, "red": 5}, seed=1)
    broken.write_bytes(broken.read_bytes()[:200])
    config = tiny_config(f"{UNCHANGED},runtime.preflight=true,data.verify=false", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"Cannot decode {broken}(.|\n)*Saved .*ckpt-1; after the repair"):
        train_tiny(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_is_traced_once_on_each_replica_whatever_was_tried(tmp_path, monkeypatch):
    made, begin = [], TrainStep.__init__

    def noted(self, *arguments, **keywords):
        made.append(self)
        begin(self, *arguments, **keywords)

    monkeypatch.setattr(TrainStep, "__init__", noted)
    config = tiny_config("runtime.preflight=true,progressive.stages=3")
    train_tiny(config, tmp_path / "run", splits=array_splits(), strategy=make_strategy("mirrored"))
    traced = [step for step in made if step.traces]
    assert [step.traces for step in traced] == [2]
    rows = [row for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "train"]
    compiled = [sum(row["compile_seconds"] for row in rows if row["stage"] == stage) for stage in range(3)]
    assert compiled[0] > 2 * max(compiled[1:])  # of the step that was tried before the first


def test_the_largest_stage_is_that_with_most_pixels_at_a_time():
    stages = [Stage(0, 0, 5, 64, 0, 0, 0, 0), Stage(1, 5, 9, 128, 0, 0, 0, 0), Stage(2, 9, 12, 256, 0, 0, 0, 0)]
    config = tiny_config("progressive.stages=3")
    assert largest_stage(stages, config) is stages[2]
    assert largest_stage(stages, config.override({"train.accumulation_steps": "1|1|8"})) is stages[1]
    assert largest_stage(stages, config.override({"train.accumulation_steps": "1|4|16"})) is stages[2]


REAL_SHORTAGE = """
import resource, psutil
import tensorflow as tf
from effnetv2_keras.training.preflight import explained_shortage
from effnetv2_keras.progressive import Stage
from tests.short_runs import tiny_config
tf.reduce_sum(tf.zeros([100]))
limit = psutil.Process().memory_info().vms + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with explained_shortage(tiny_config(), 1, Stage(1, 6, 12, 24, 0, 0, 0, 0)):
    tf.zeros([2**30])
"""


@pytest.mark.slow
def test_a_real_shortage_of_memory_is_explained():
    result = subprocess.run([sys.executable, "-c", REAL_SHORTAGE], capture_output=True, text=True, check=False)
    assert "MemoryShortageError: Stage 2 does not fit in memory: 8 images of 24 px at a time" in result.stderr


def test_micro_batches_that_do_not_divide_are_found_before_the_first_step(tmp_path):
    config = tiny_config("train.accumulation_steps=3|1")  # of the smaller stage, and without a trial
    with pytest.raises(UsageError, match="accumulation_steps=3 does not divide the 8 images"):
        train_tiny(config, tmp_path / "run", splits=array_splits())
    assert RunFolder(tmp_path / "run").metrics() == []
