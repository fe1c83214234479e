"""The figures of images with several labels, against NumPy and scikit-learn."""

import functools
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix, f1_score

from effnetv2_keras.data.pipeline import eval_input
from effnetv2_keras.data.sources.base import FileSource
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.optim import losses
from effnetv2_keras.reporting.class_figures import calibration_error
from effnetv2_keras.training import evaluation
from tests.data.test_pipeline import make_plan

COUNT, CLASSES, BROKEN = 45, 7, 11
CLASS_NAMES = tuple("abcdefg")


def write_images(root):
    """Images of one colour each, of which one is broken, and their labels: up to three, none for every ninth."""
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (COUNT, 3), np.uint8)
    labels = [sorted(random.choice(CLASSES - 1, number % 3 + 1, replace=False)) for number in range(COUNT)]
    labels = [[] if number % 9 == 0 else [int(label) for label in row] for number, row in enumerate(labels)]
    paths = []
    for number, colour in enumerate(colours):
        file = io.BytesIO()
        PIL.Image.fromarray(np.broadcast_to(colour, (8, 8, 3)).copy()).save(file, "PNG")
        path = root / f"{number:02d}.png"
        path.write_bytes(file.getvalue()[: 30 if number == BROKEN else None])
        paths.append(str(path))
    return colours, labels, paths


def linear_model(seed):
    model = tf.keras.Sequential([
        tf.keras.layers.GlobalAveragePooling2D(input_shape=(8, 8, 3)), tf.keras.layers.Dense(CLASSES)
    ])  # fmt: skip
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.03, (3, CLASSES)), random.normal(0, 1, CLASSES)])
    return model


def by_numpy(logits, labels, loss_type):
    """All figures from logits and labels ``[images, classes]``; a focal loss has those of its cross-entropy."""
    loss_type = {"focal": "softmax", "sigmoid_focal": "sigmoid"}.get(loss_type, loss_type)
    figures = {}
    order = np.argsort(-logits, axis=1)
    labelled = labels.any(1)
    for k in (1, 5):
        hits = np.take_along_axis(labels, order[:, :k], 1).sum(1)
        figures[f"top{k}"] = np.mean(hits > 0)
        figures[f"precision_at_{k}"] = np.mean(hits / k)
        figures[f"recall_at_{k}"] = np.mean(hits[labelled] / labels[labelled].sum(1))
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = softmax if loss_type == "softmax" else logits
    figures["average_precision"] = [average_precision_score(labels[:, c], scores[:, c]) for c in range(CLASSES - 1)]
    figures["map"] = np.mean(figures["average_precision"])
    figures["global_ap"] = average_precision_score(labels.ravel(), scores.ravel())
    if loss_type == "softmax":
        shares = labels / np.maximum(labels.sum(1, keepdims=True), 1)
        figures["eval_loss"] = -np.mean((shares * np.log(softmax)).sum(1))
    else:
        each = np.log1p(np.exp(-np.where(labels, logits, -logits)))
        figures["eval_loss"] = np.mean(each.mean(1) if loss_type == "sigmoid" else each.sum(1))
    return figures


@pytest.mark.parametrize(
    ("strategy_name", "loss_type"),
    [
        pytest.param(name, loss, marks=[] if loss == "sigmoid" else [pytest.mark.slow])
        for name in ("cpu", "mirrored")
        for loss in losses.LOSSES
    ],
)
def test_several_labels_an_image(tmp_path, strategy_name, loss_type):
    colours, labels, paths = write_images(tmp_path)
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        models = {"": linear_model(0), "_ema": linear_model(1)}
    evaluator = evaluation.Evaluator(
        models,
        strategy,
        input_fn=eval_input(
            FileSource(paths, labels, CLASS_NAMES), make_plan(8, unreadable="skip", eval_crop=1.0), image_size=8
        ),
        num_examples=COUNT,
        batch_size=8,
        loss_type=loss_type,
    )
    result = evaluator.run()
    assert result["num_images"] == COUNT - 1
    readable = np.arange(COUNT) != BROKEN
    hot = np.array([[number in row for number in range(CLASSES)] for row in labels])[readable]
    for suffix, model in models.items():
        logits = model(colours[readable, None, None].astype(np.float32) * np.ones((1, 8, 8, 1))).numpy()
        expected = by_numpy(logits.astype(np.float64), hot, loss_type)
        found = {name: result[f"{name}{suffix}"] for name in expected}
        assert np.isnan(found["average_precision"][-1])
        assert result[f"num_positive{suffix}"].tolist() == hot.sum(0).tolist()
        np.testing.assert_allclose(found.pop("average_precision")[:-1], expected.pop("average_precision"), rtol=1e-6)
        assert found == pytest.approx(expected, rel=1e-5)
    assert len({round(result[name], 4) for name in ("map", "map_ema", "global_ap", "global_ap_ema")}) == 4
    assert evaluator.run()["map"] == result["map"]  # each evaluation starts anew


@pytest.mark.parametrize("strategy_name", ["cpu", "mirrored"])
def test_the_confusion_of_classes_counts_each_readable_image_once(tmp_path, strategy_name):
    """An unreadable image and the filling of the last batch count nowhere."""
    colours, _, paths = write_images(tmp_path)
    labels = [number % CLASSES for number in range(COUNT)]
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        model = linear_model(0)
    steps = []
    evaluator = evaluation.Evaluator(
        {"": model},
        strategy,
        input_fn=eval_input(FileSource(paths, labels, CLASS_NAMES), make_plan(8, unreadable="skip"), image_size=8),
        num_examples=COUNT,
        batch_size=8,
        keep_mistakes=5,
    )
    result = evaluator.run(lambda *step: steps.append(step))
    assert steps == [(number, 6) for number in range(1, 7)]
    readable = np.arange(COUNT) != BROKEN
    logits = model(colours[:, None, None].astype(np.float32) * np.ones((1, 8, 8, 1)))
    taken_for, probabilities = logits.numpy().argmax(1), tf.nn.softmax(logits).numpy()
    expected = confusion_matrix(np.array(labels)[readable], taken_for[readable], labels=range(CLASSES))
    np.testing.assert_array_equal(result["confusion"], expected)
    assert result["top1"] == pytest.approx(np.trace(expected) / (COUNT - 1))
    true, found = np.array(labels)[readable], taken_for[readable]
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, found))
    assert result["macro_f1"] == pytest.approx(f1_score(true, found, average="macro", zero_division=0))
    assert result["ece"] == pytest.approx(
        calibration_error(probabilities.max(1)[readable].astype(float), true == found), abs=1e-5
    )
    wrong = np.flatnonzero(readable & (taken_for != np.array(labels)))
    worst = wrong[np.argsort(-probabilities.max(1)[wrong])][:5]
    kept = evaluator.mistakes.worst()
    assert [one.predicted for one in kept] == taken_for[worst].tolist()
    assert [one.true for one in kept] == [(labels[number],) for number in worst]
    for mistake, number in zip(kept, worst):
        assert (mistake.image == colours[number]).all()


def test_rounded_figures_name_their_error(tmp_path, monkeypatch):
    _, labels, paths = write_images(tmp_path)
    ranking = functools.partial(evaluation.Ranking, kept_scores=100)
    monkeypatch.setattr(evaluation, "Ranking", ranking)
    evaluator = evaluation.Evaluator(
        {"": linear_model(0)},
        make_strategy("cpu"),
        input_fn=eval_input(FileSource(paths, labels, CLASS_NAMES), make_plan(8, unreadable="skip"), image_size=8),
        num_examples=COUNT,
        batch_size=8,
        loss_type="sigmoid",
    )
    result = evaluator.run()
    assert 0 <= result["map_error"] < 0.01
    assert 0 <= result["global_ap_error"] < 0.01
