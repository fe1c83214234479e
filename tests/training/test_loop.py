import csv
import functools
import io
import json
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.data.sources.base import ArraySource, DataError
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import Interrupted, UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.training.selection import moved_variables
from effnetv2_keras.training.steps import TrainStep
from effnetv2_keras.weights import load_weights
from tests.images import picture, write_classes
from tests.short_runs import ONE_STAGE, UNCHANGED, tiny_config, train_tiny
from tests.tiny import SMALL

COLORS = [(220, 40, 30), (30, 200, 60), (30, 40, 220)]


def array_splits():
    def source(count, seed):
        images = np.stack([picture(COLORS[index % 3], seed + index) for index in range(count)])
        return ArraySource(images, np.arange(count) % 3, ("red", "green", "blue"))

    return Splits(source(24, 0), source(13, 500))


def final_weights(model_dir):
    """All variables of the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(model_dir / "checkpoints"))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in name and "save_counter" not in name
    }


def assert_equal_runs(left, right):
    left, right = final_weights(left), final_weights(right)
    assert left.keys() == right.keys()
    assert len(left) > 100
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def stop_at(monkeypatch, step, action):
    """Runs ``action`` during a step of the next run, once."""
    call = TrainStep.__call__
    count = [0]

    def counted(self, *arguments):
        count[0] += 1
        if count[0] == step:
            action()
        return call(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", counted)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, image_folder, plain):
    """Two whole runs, and what a crash in step 3, 7 or 10 would leave of the second."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(plain, root / "arrays")
    with pytest.MonkeyPatch.context() as patch:
        for step in (3, 7, 10):
            copy = functools.partial(shutil.copytree, root / "folder", root / f"crashed_{step}")
            stop_at(patch, step, copy)
        train_tiny(tiny_config(data_dir=str(image_folder)), root / "folder")
    return root


def test_a_run_leaves_what_a_person_needs(uninterrupted):
    run = uninterrupted / "arrays"
    names = {path.name for path in run.iterdir()}
    assert {
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "metrics.csv",
        "training.png",
        "report.html",
        "checkpoints",
        "best",
    } <= names
    rows = RunFolder(run).metrics()
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [6, 12]
    assert all(row["num_images"] == 13 for row in evaluations)
    assert [(row["stage"], row["image_size"]) for row in evaluations] == [(0, 16), (1, 24)]
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [3, 4, 6, 8, 9, 12]  # every 3 steps and before every checkpoint
    assert all(np.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in trained)
    assert [row["compile_seconds"] > 0 for row in trained] == [True, False, False, True, False, False]
    assert all(0 <= row["input_wait"] <= 1 and row["memory_mb"] > 100 for row in trained)
    assert all(row["ema_gap"] == row["top1_ema"] - row["top1"] for row in evaluations)
    assert f">{trained[-1]['loss']:.3f}<" in (run / "report.html").read_text()
    header, *lines = (run / "metrics.csv").read_text().splitlines()
    assert header.startswith("kind,step,epoch,stage,image_size")
    assert len(lines) == len(rows)


def test_training_learns(tmp_path):
    config = tiny_config(f"{UNCHANGED},train.epochs=30,eval.every_epochs=15,train.lr_base=0.3")
    result = train_tiny(config, tmp_path / "run", splits=array_splits())
    assert result["top1"] == 1.0
    assert result["top1_ema"] > 0.9


@pytest.mark.parametrize("steps", [pytest.param([5], marks=pytest.mark.slow), [6, 12]])
def test_stopped_and_continued_equals_uninterrupted(uninterrupted, tmp_path, monkeypatch, steps):
    """A signal in the middle of a stage; or at its border (6), and then at the very end (12)."""
    for before, step in zip([0, *steps], steps):
        with monkeypatch.context() as patch:
            stop_at(patch, step - before, lambda: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(Interrupted, match=f"SIGTERM: saved .*ckpt-{step}"):
                train_tiny(tiny_config(), tmp_path / "run", splits=array_splits())
        assert RunFolder(tmp_path / "run").metrics()[-1]["step"] == step
    train_tiny(tiny_config(), tmp_path / "run", splits=array_splits())
    assert_equal_runs(uninterrupted / "arrays", tmp_path / "run")


@pytest.mark.slow
def test_a_run_with_lamb_goes_on_too_and_its_weights_load(tmp_path, monkeypatch):
    config = tiny_config(
        "train.optimizer=lamb,train.lr_base=0.5,train.weight_decay=0.1,train.weight_decay_inc=2,train.gclip=1,"
        "train.varsexp=stem|block_1|classifier,eval.every_epochs=4,progressive.stages=1"
    )
    train_tiny(config, tmp_path / "whole", splits=array_splits())
    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted, match="SIGTERM"):
            train_tiny(config, tmp_path / "run", splits=array_splits())
    train_tiny(config, tmp_path / "run", splits=array_splits())
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    model = build_model(SMALL, num_classes=3)
    slots = [name for name in final_weights(tmp_path / "run") if name.startswith("optimizer/_variables/")]
    assert len(slots) == 2 * len(moved_variables(model, config.train.varsexp))
    report = load_weights(model, str(tmp_path / "run"))
    assert len(report.loaded) == len(model.weights)


@pytest.mark.parametrize("loss_type", ["softmax", "sigmoid"])
@pytest.mark.slow
def test_several_labels_are_learnt_and_the_best_is_by_map(tmp_path, loss_type):
    """Red and blue stripes: an image has the labels of the colours that it shows."""
    shown = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0]], bool)[np.arange(48) % 4]

    def source(part):
        images = np.zeros((len(shown[part]), 32, 32, 3), np.uint8)
        images += np.random.default_rng(0).integers(0, 60, images.shape, np.uint8)
        for image, colours in zip(images, shown[part]):
            for number in np.flatnonzero(colours):
                image[:, :, number] += 150
        return ArraySource(images, shown[part], ("red", "green", "blue"))

    output = io.StringIO()
    config = tiny_config(
        f"{UNCHANGED},train.epochs=20,eval.every_epochs=5,train.loss_type={loss_type},progressive.mixup_alpha.end=0,"
        "runtime.tensorboard=true"
    )
    splits = Splits(source(slice(32)), source(slice(32, None)))
    result = train_tiny(config, tmp_path / "run", splits=splits, output=output)
    evaluations = [row for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "eval"]
    assert result["map"] > 0.9
    assert all({"map", "global_ap_ema", "precision_at_1", "recall_at_5_ema"} <= row.keys() for row in evaluations)
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best["metric"] == "map_ema"
    assert best["value"] == max(row["map_ema"] for row in evaluations)
    assert f"mAP {result['map']:.4f} global AP {result['global_ap']:.4f} precision@1" in output.getvalue()
    assert "EMA mAP │" in output.getvalue() or "EMA mAP ┃" in output.getvalue()
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["map_ema"]) == result["map_ema"]
    events = next((tmp_path / "run").glob("events.out.tfevents.*"))
    shown = [
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert {"eval/map", "eval/map_ema", "eval/recall_at_1"} <= {tag for tag, _ in shown}
    assert [step for tag, step in shown if tag == "train/images"] == [0, 40]  # where the two stages begin


def test_a_run_takes_its_least_number_of_steps(tmp_path):
    config = tiny_config(f"{ONE_STAGE},train.epochs=1,train.min_steps=5,eval.every_epochs=9")
    result = train_tiny(config, tmp_path / "run", splits=array_splits())
    assert result["step"] == 5
    assert RunFolder(tmp_path / "run").metrics()[-2]["lr"] == pytest.approx(  # of a cosine over five steps
        0.2 * 8 / 256 * 0.5 * (1 + np.cos(np.pi * 4 / 5)), rel=1e-3
    )


def test_a_run_takes_the_random_sizes_of_its_seed(tmp_path):
    config = tiny_config(f"{UNCHANGED},progressive.order=random,train.seed=4,train.epochs=1,runtime.log_every=1")
    train_tiny(config, tmp_path / "run", splits=array_splits())
    rows = [row for row in RunFolder(tmp_path / "run").metrics() if row["kind"] == "train"]
    planned = [stage.image_size for stage in config.plan(3) for _ in range(stage.num_steps)]
    assert [row["image_size"] for row in rows] == planned == [18, 17, 17]


def test_variables_to_train_that_do_not_exist_leave_the_folder_free(tmp_path):
    with pytest.raises(UsageError, match="train.varsexp is 'blocks_0', which matches none"):
        train_tiny(tiny_config("train.varsexp=blocks_0"), tmp_path / "run", splits=array_splits())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [3, 7, 10])
@pytest.mark.slow
def test_crashed_and_continued_equals_uninterrupted(uninterrupted, image_folder, step):
    """A crash leaves the last checkpoint only; the steps since are repeated, from files on disk."""
    run = uninterrupted / f"crashed_{step}"
    latest = tf.train.latest_checkpoint(str(run / "checkpoints"))
    assert latest.endswith(f"ckpt-{ {3: 0, 7: 6, 10: 8}[step] }")
    train_tiny(tiny_config(data_dir=str(image_folder)), run)
    assert_equal_runs(uninterrupted / "folder", run)
    steps = [(row["kind"], row["step"]) for row in RunFolder(run).metrics()]
    assert len(steps) == len(set(steps))


def test_runs_differ_where_they_should(uninterrupted):
    """Guards the comparison above against being vacuous: these two had other images."""
    assert final_weights(uninterrupted / "arrays").keys() == final_weights(uninterrupted / "folder").keys()
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_equal_runs(uninterrupted / "arrays", uninterrupted / "folder")


@pytest.mark.slow
def test_two_replicas_train_and_evaluate_every_image(tmp_path):
    config = tiny_config()
    result = train_tiny(config, tmp_path / "run", splits=array_splits(), strategy=make_strategy("mirrored"))
    assert result["num_images"] == 13
    assert result["step"] == 12


def test_finished_run_is_reported_again_without_training(uninterrupted, monkeypatch):
    monkeypatch.setattr(TrainStep, "__call__", lambda *_: pytest.fail("a finished run was trained again"))
    output = io.StringIO()
    result = train_tiny(tiny_config(), uninterrupted / "arrays", splits=array_splits(), output=output)
    assert result["step"] == 12
    assert "Stages of this run" in output.getvalue()
    assert "was finished before, so nothing was trained.\nepoch 4.0, step 12: evaluated 13 of 13" in output.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            "train.epochs=5,train.lr_base=0.1",
            "train.epochs was 4.0 and is now 5.0; train.lr_base was 0.2 and is now 0.1",
        ),
        ("model.survival_prob=1", "model.survival_prob was 0.8 and is now 1.0"),
    ],
)
def test_another_configuration_is_refused(uninterrupted, changes, message):
    before = (uninterrupted / "arrays" / "config.yaml").read_text()
    with pytest.raises(RunFolderError, match=f"holds another run: .*{re.escape(message)}"):
        train_tiny(tiny_config(changes), uninterrupted / "arrays", splits=array_splits())
    assert (uninterrupted / "arrays" / "config.yaml").read_text() == before


def test_other_data_is_refused(uninterrupted):
    splits = array_splits()
    fewer = Splits(splits.evaluation, splits.train)
    with pytest.raises(RunFolderError, match="num_train was 24 and is now 13"):
        train_tiny(tiny_config(), uninterrupted / "arrays", splits=fewer)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="is not empty and holds no config.yaml"):
        train_tiny(tiny_config(), tmp_path, splits=array_splits())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_unreadable_image_stops_or_is_left_out(tmp_path):
    paths = write_classes(tmp_path / "images" / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(tmp_path / "images" / "val", {"red": 2, "green": 2, "blue": 2})
    broken = paths[4]
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=f"Cannot decode {broken}.*data.unreadable=skip"):
        train_tiny(tiny_config(ONE_STAGE, data_dir=str(tmp_path / "images")), tmp_path / "stops")
    config = tiny_config(ONE_STAGE, data_dir=str(tmp_path / "images"), unreadable="skip")
    result = train_tiny(config, tmp_path / "goes_on")
    assert result["step"] == 11  # 4 epochs of 23 images


def test_unreadable_images_are_named_and_counted(caplog):
    seen = UnreadableImages("skip")
    for name in (b"a.jpg", b"b.jpg", b"a.jpg"):
        seen.report(name)
    assert seen.names == ["a.jpg", "b.jpg"]
    assert "cannot be decoded (2 so far): b.jpg" in caplog.text


@pytest.mark.slow
def test_a_batch_larger_than_the_data_shrinks(tmp_path, caplog):
    result = train_tiny(tiny_config("train.batch_size=100"), tmp_path / "run", splits=array_splits())
    assert "only 24 training images: a batch has 16 images in this run" in caplog.text
    config = RunFolder(tmp_path / "run").config()
    assert (config.train.batch_size, result["step"]) == (16, config.total_steps(24))
