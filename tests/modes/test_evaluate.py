"""``--mode=eval``: runs, exports and files of weights on the same images, at one size or several."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import PIL.Image
import pytest
import rich.console
import tensorflow as tf
from sklearn.metrics import average_precision_score, f1_score

from effnetv2_keras.architecture import variants
from effnetv2_keras.config import Config
from effnetv2_keras.data import decode
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.export import export_model
from effnetv2_keras.models import build_model
from effnetv2_keras.modes.evaluate import evaluate, is_export, load_export, load_file, load_run
from effnetv2_keras.modes.per_class import report_classes
from effnetv2_keras.modes.subjects import check_fold
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.class_figures import Answers
from effnetv2_keras.reporting.evaluations import read_evaluations
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import load_trained
from tests.made_runs import CLASS_NAMES, EVAL_CROP, EVAL_SIZE, make_run, random_pixels
from tests.models.filling import fill_at_random
from tests.tiny import TINY

COUNT = 29
EVAL = {"eval.batch_size": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


IMAGES = np.stack([random_pixels(64, 64, seed=seed) for seed in range(COUNT)])
LABELS = np.arange(COUNT) % 5  # no image of the last class


@pytest.fixture(scope="module")
def splits():
    source = ArraySource(IMAGES, LABELS, CLASS_NAMES)
    return Splits(source, source)


def expected_confusion(run, size):
    """By hand: the averaged weights' answers on the centre of each image."""
    model = load_trained(run).model
    confusion = np.zeros([6, 6], int)
    for image, label in zip(IMAGES, LABELS):
        crop = decode.central_crop(tf.constant(image), image_size=size, crop=EVAL_CROP)
        confusion[label, model(crop[None], training=False).numpy().argmax()] += 1
    return confusion


def quiet():
    return rich.console.Console(file=io.StringIO(), width=300)


def check_mistakes(run, noted):
    """The most confident mistakes of the averaged weights are kept as pictures."""
    crops = [decode.central_crop(tf.constant(image), image_size=EVAL_SIZE, crop=EVAL_CROP) for image in IMAGES]
    shares = tf.nn.softmax(load_trained(run).model(tf.stack(crops), training=False)).numpy()
    predicted, probability = shares.argmax(1), shares.max(1)
    wrong = [number for number in np.argsort(-probability) if predicted[number] != LABELS[number]]
    assert len(noted.mistakes) == min(len(wrong), 24)
    for mistake, number in zip(noted.mistakes, wrong):
        assert mistake.probability == pytest.approx(probability[number], abs=1e-3)
        assert (mistake.predicted, mistake.true) == (
            CLASS_NAMES[predicted[number]], (CLASS_NAMES[LABELS[number]],)
        )  # fmt: skip
        with PIL.Image.open(run / "mistakes" / mistake.picture) as picture:
            assert np.abs(np.asarray(picture).astype(float) - crops[number].numpy()).mean() < 25  # JPEG; others: 80
        assert (run / "mistakes" / mistake.overlay).stat().st_size > 500


@pytest.mark.parametrize("strategy_name", [pytest.param("cpu", marks=pytest.mark.slow), "mirrored"])
def test_a_run_gives_its_best_raw_and_averaged_weights(run, splits, strategy_name, tmp_path):
    strategy, console = make_strategy(strategy_name), quiet()
    subject = load_run(run, strategy, changes=EVAL)
    result = evaluate(subject, strategy, splits=splits, folder=tmp_path, console=console)
    printed = console.file.getvalue().splitlines()
    assert json.loads(printed[-1]) == result
    assert (result["step"], result["image_size"], result["num_examples"], result["num_images"]) == (
        0, EVAL_SIZE, COUNT, COUNT,
    )  # fmt: skip
    assert {"top1", "top5", "eval_loss", "top1_ema", "top5_ema", "eval_loss_ema"} <= set(result)
    assert result["eval_loss"] != result["eval_loss_ema"]
    assert {path.name for path in tmp_path.iterdir()} == {"per_class.csv", "confusion.csv", "confusion.png"}
    (noted,) = read_evaluations(RunFolder(run))
    assert (noted.split, noted.step, noted.averaged, noted.image_size) == (None, 0, True, EVAL_SIZE)
    figures = {name: value for name, value in result.items() if name in noted.figures}
    assert noted.figures == figures
    assert figures.keys() >= {"macro_f1", "balanced_accuracy", "ece", "macro_f1_ema", "ece_ema"}
    check_mistakes(run, noted)


def test_an_export_leaves_no_files_unless_a_folder_is_given(run, splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subject = dataclasses.replace(load_run(run, make_strategy("cpu"), changes=EVAL), step=None, folder=None)
    evaluate(subject, make_strategy("cpu"), splits=splits, console=quiet())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_export_and_a_file_of_weights_do_as_the_run_does(run, splits, tmp_path):
    strategy = make_strategy("cpu")
    changes = {"data.eval_crop": EVAL_CROP, **EVAL}
    expected = evaluate(load_run(run, strategy, changes=EVAL), strategy, splits=splits, console=quiet())
    trained = load_trained(run)
    export_model(trained, tmp_path / "saved")
    assert is_export(tmp_path / "saved")
    assert not is_export(run)
    exported = load_export(str(tmp_path / "saved"), strategy, Config().override(changes))
    assert (exported.image_size, exported.class_names) == (EVAL_SIZE, CLASS_NAMES)
    row = evaluate(exported, strategy, splits=splits, console=quiet())
    assert "step" not in row
    for name in ("top1", "top5", "eval_loss"):
        assert row[name] == pytest.approx(expected[f"{name}_ema"], rel=1e-4)
    larger = load_export(str(tmp_path / "saved"), strategy, Config().override({**changes, "eval.isize": 48}))
    assert evaluate(larger, strategy, splits=splits, console=quiet())["image_size"] == 48
    # The reference code's pipelines make pixels with fractions.
    fractions = load_export(str(tmp_path / "saved"), strategy, Config().override({"data.pipeline": "original_v2"}))
    assert evaluate(fractions, strategy, splits=splits, console=quiet())["num_images"] == COUNT


def test_a_run_is_evaluated_in_the_precision_that_is_asked_for(run):
    subject = load_run(run, make_strategy("cpu"), changes={"precision.policy": "mixed_bfloat16"})
    for model in subject.models.values():
        assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
    assert {tf.as_dtype(model.output.dtype) for model in subject.models.values()} == {tf.float32}


def test_a_file_of_weights_is_evaluated_by_name_of_its_network(tmp_path, monkeypatch):
    monkeypatch.setitem(variants.MODELS, "efficientnetv2-b0", dataclasses.replace(TINY, name="efficientnetv2-b0"))
    strategy = make_strategy("cpu")
    model = build_model("efficientnetv2-b0", num_classes=3)
    fill_at_random(model)
    model.save_weights(tmp_path / "b0.weights.h5")
    images = np.stack([random_pixels(40, 40, seed=seed) for seed in range(6)])
    source = ArraySource(images, np.arange(6) % 3, ("a", "b", "c"))
    config = Config().override(
        {
            "train.ft_init_ckpt": str(tmp_path / "b0.weights.h5"),
            "eval.isize": 40,
            "data.eval_crop": 1.0,
            "eval.batch_size": 4,
        }
    )
    row = evaluate(load_file(config, strategy, num_classes=3), strategy, splits=Splits(source, source), console=quiet())
    logits = model(images.astype(np.float32), training=False).numpy()
    assert row["top1"] == pytest.approx(np.mean(logits.argmax(-1) == np.arange(6) % 3))
    with pytest.raises(
        ConfigError, match="The data has 4 classes, but .*b0.weights.h5 .* has no classifier for them. Loaded"
    ):
        load_file(config, strategy, num_classes=4)
    with pytest.raises(ConfigError, match=r"needs --model_dir, .*--hparam_str=train.ft_init_ckpt=PATH"):
        load_file(Config(), strategy, num_classes=3)


def test_several_sizes_give_a_row_each_and_a_plot(run, splits, tmp_path):
    strategy, console = make_strategy("cpu"), quiet()
    sizes = {"eval.sizes": "24|40|56", **EVAL}
    result = evaluate(load_run(run, strategy, changes=sizes), strategy, splits=splits, folder=tmp_path, console=console)
    assert [row["image_size"] for row in result["sizes"]] == [24, 40, 56]
    assert len({row["eval_loss"] for row in result["sizes"]}) == 3
    best = max(result["sizes"], key=lambda row: row["top1_ema"])
    assert result["top1_ema"] == best["top1_ema"]
    assert (tmp_path / "eval_sizes.png").stat().st_size > 5000
    alone = evaluate(
        load_run(run, strategy, changes={"eval.isize": 56, **EVAL}), strategy, splits=splits,
        console=quiet(),
    )  # fmt: skip
    assert alone == result["sizes"][2]
    for line, size in zip(console.file.getvalue().splitlines(), (24, 40, 56)):
        assert line.startswith(f"{size} px: evaluated {COUNT} of {COUNT} images")


def test_each_class_is_counted(run, splits, tmp_path):
    strategy, console = make_strategy("mirrored"), quiet()
    subject = load_run(run, strategy, changes=EVAL)
    result = evaluate(subject, strategy, splits=splits, folder=tmp_path / "new", console=console)
    confusion = expected_confusion(run, EVAL_SIZE)
    with (tmp_path / "new" / "per_class.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASS_NAMES)
    assert [int(row["images"]) for row in rows] == confusion.sum(1).tolist()
    for row, counts, hit in zip(rows[:5], confusion, confusion.diagonal()):
        assert float(row["top1"]) == pytest.approx(hit / counts.sum())
    assert rows[5]["top1"] == "nan"
    hits = sum(float(row["top1"]) * int(row["images"]) for row in rows[:5])
    assert result["top1_ema"] == pytest.approx(hits / COUNT)
    assert (tmp_path / "new" / "confusion.png").stat().st_size > 5000
    with (tmp_path / "new" / "confusion.csv").open(encoding="utf-8", newline="") as file:
        assert [[int(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]] == confusion.tolist()
    output = console.file.getvalue()
    assert "Classes, lowest F1 first (EMA)" in output
    true, predicted = np.unravel_index((confusion - np.diag(confusion.diagonal())).argmax(), confusion.shape)
    count, total = confusion[true, predicted], confusion[true].sum()
    assert f"{count} of {total} {CLASS_NAMES[true]} were called {CLASS_NAMES[predicted]}." in output


def test_what_is_printed_fits_80_columns(tmp_path):
    """Whatever the names and the number of classes."""
    names = [f"a class with a very long name that goes on and on, number {number}" for number in range(40)]
    answers = Answers(40)
    answers.update(np.arange(4000) % 40, np.arange(4000) % 39, np.full(4000, 0.25))
    figures = {"num_images": 123456, "top1": 0.5, "top1_ema": 0.5}
    figures.update({f"{name}{suffix}": one for suffix in ("", "_ema") for name, one in answers.result().items()})
    console = rich.console.Console(file=io.StringIO(), width=80)
    report_classes(figures, names, None, console)
    tables = [line for line in console.file.getvalue().splitlines() if "were called" not in line]
    assert max(map(len, tables)) <= 80
    assert sum("a class with" in line for line in tables) == 20
    assert "The 20 worst of 40 classes" in console.file.getvalue()
    assert "0.5000 (0.497 to 0.503)" in console.file.getvalue()


SEVERAL = np.random.default_rng(1).random((COUNT, 6)) < np.linspace(0.1, 0.6, 6)
SEVERAL[:, 2] = False  # no image of this class


@pytest.mark.slow
def test_each_class_of_several_labels_has_its_average_precision(run, tmp_path):
    strategy, console = make_strategy("mirrored"), quiet()
    changes = {"eval.sizes": "24|40", **EVAL}
    source = ArraySource(IMAGES, SEVERAL, CLASS_NAMES)
    result = evaluate(
        load_run(run, strategy, changes=changes), strategy, splits=Splits(source, source), folder=tmp_path,
        console=console,
    )  # fmt: skip
    assert result["map_ema"] == max(row["map_ema"] for row in result["sizes"])
    assert len({row["map_ema"] for row in result["sizes"]}) == 2
    model = load_trained(run).model
    crops = [decode.central_crop(tf.constant(i), image_size=result["image_size"], crop=EVAL_CROP) for i in IMAGES]
    scores = tf.nn.softmax(model(tf.stack(crops), training=False)).numpy()
    expected = [average_precision_score(SEVERAL[:, c], scores[:, c]) for c in range(6) if c != 2]
    with (tmp_path / "per_class.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASS_NAMES)
    assert [int(row["images"]) for row in rows] == SEVERAL.sum(0).tolist()
    assert rows.pop(2)["average precision"] == "nan"
    assert [float(row["average precision"]) for row in rows] == pytest.approx(expected, abs=1e-3)
    assert result["map_ema"] == pytest.approx(np.mean(expected), abs=1e-3)
    lines = console.file.getvalue().splitlines()
    assert f"24 px: evaluated {COUNT} of {COUNT} images: mAP {result['sizes'][0]['map']:.4f} global AP " in lines[0]
    assert f", EMA mAP {result['sizes'][0]['map_ema']:.4f} global AP " in lines[0]
    assert json.loads(lines[-1]) == result
    found = np.stack(scores) > 0.5
    known = [c for c in range(6) if c != 2]
    assert result["macro_f1_ema"] == pytest.approx(
        f1_score(SEVERAL, found, labels=known, average="macro", zero_division=0), abs=1e-6
    )
    assert any(line.startswith("│ macro recall") for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"per_class.csv", "eval_sizes.png"}


def test_a_confusion_matrix_of_many_classes_is_drawn_without_their_names(tmp_path):
    plots.plot_confusion(np.eye(300, dtype=np.int64), [str(n) for n in range(300)], tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 5000


def test_a_fold_that_the_run_was_trained_on_is_refused():
    trained = Config().override({"data.folds": 5, "data.fold": 0})
    for changes in ({"data.eval_split": "test"}, {"data.folds": None, "data.fold": None}):
        check_fold(trained, trained.override(changes))
    for changes in ({"data.fold": 1}, {"data.folds": 4}, {"data.group_by": "folder"}):
        with pytest.raises(ConfigError, match="would evaluate on images that it was trained on. Leave these"):
            check_fold(trained, trained.override(changes))


def test_what_does_not_fit_is_refused(run, splits, tmp_path):
    strategy = make_strategy("cpu")
    with pytest.raises(ConfigError, match="settings in data, eval and precision, but not train.epochs"):
        load_run(run, strategy, changes={"train.epochs": 3})
    source = ArraySource(IMAGES, np.arange(COUNT) % 2, ("other", "names"))
    with pytest.raises(
        UsageError, match=r"was trained on the classes \('ape', .*but the data has \('other', 'names'\)"
    ):
        evaluate(load_run(run, strategy), strategy, splits=Splits(source, source), console=quiet())
    build_model(TINY, num_classes=2).export(tmp_path / "foreign")
    with pytest.raises(UsageError, match=r"was not written by --mode=export of this version.*Export the run again"):
        load_export(str(tmp_path / "foreign"), strategy, Config())
