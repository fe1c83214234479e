"""The figures of a classifier, against scikit-learn, a reference in plain NumPy, and by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from effnetv2_keras.reporting.class_figures import (
    Answers,
    calibration_error,
    figures_of_classes,
    interval,
    means,
    most_confused,
)

CLASSES = 6


def answers(*, seed=0, count=200):
    """Labels without the last class, answers that never are class 2, and probabilities; half of them are right."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES - 1, count)
    predicted = np.where(random.random(count) < 0.5, labels, random.integers(0, CLASSES, count))
    predicted[predicted == 2] = 0
    return labels, predicted, random.uniform(1 / CLASSES, 1, count)


def collected(labels, predicted, probabilities):
    collector = Answers(CLASSES)
    for start in range(0, len(labels), 64):
        part = slice(start, start + 64)
        collector.update(labels[part], predicted[part], probabilities[part])
    return collector.result()


def test_figures_are_those_of_scikit_learn():
    labels, predicted, probabilities = answers()
    result = collected(labels, predicted, probabilities)
    np.testing.assert_array_equal(result["confusion"], confusion_matrix(labels, predicted, labels=range(CLASSES)))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=0
    )
    found, known = figures_of_classes(result), support > 0
    assert result["num_positive"].tolist() == support.tolist()
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(found[name][known], expected[known])
    assert np.isnan([found["recall"][-1], found["f1"][-1]]).all()
    assert result["macro_precision"] == pytest.approx(precision[known].mean())
    assert result["macro_f1"] == pytest.approx(f1[known].mean())
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_several_labels_are_counted_by_class():
    random = np.random.default_rng(1)
    labels, predicted = random.random((50, 4)) < 0.4, random.random((50, 4)) < 0.5
    tables = {
        "num_positive": labels.sum(0), "num_predicted": predicted.sum(0), "num_hits": (labels & predicted).sum(0)
    }  # fmt: skip
    expected = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)[:3]
    assert means(tables, several=True) == pytest.approx(
        dict(zip(("macro_precision", "macro_recall", "macro_f1"), expected))
    )
    assert means({name: np.zeros(4, int) for name in tables}) == {}


def test_the_calibration_error_by_hand():
    # Two images at 0.9 in one bin, one of them right: |0.9 - 0.5|. Two at 0.62 in another, both right: |0.62 - 1|.
    probabilities, correct = np.array([0.9, 0.9, 0.62, 0.62]), np.array([True, False, True, True])
    assert calibration_error(probabilities, correct) == pytest.approx(0.5 * 0.4 + 0.5 * 0.38)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert calibration_error(np.array([]), np.array([], bool)) == 0


def test_the_calibration_error_is_that_of_the_definition():
    labels, predicted, probabilities = answers(seed=3, count=500)
    correct, expected = labels == predicted, 0.0
    for number in range(15):
        inside = (probabilities > number / 15) & (probabilities <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - probabilities[inside].mean())
    assert expected > 0.05
    assert collected(labels, predicted, probabilities)["ece"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 10, 0.0, 0.2775), (20, 20, 0.8389, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_those_of_wilson(hits, count, low, high):
    """The first is an example of Newcombe 1998, "Two-sided confidence intervals for the single proportion"."""
    assert interval(hits / max(count, 1), count) == pytest.approx((low, high), abs=5e-5)


def test_the_most_frequent_confusion_comes_first():
    confusion = np.array([[5, 1, 0], [7, 5, 0], [2, 0, 0]])
    assert most_confused(confusion) == [(1, 0, 7), (2, 0, 2), (0, 1, 1)]


def test_many_classes_have_figures_without_a_matrix():
    collector = Answers(30_000)
    collector.update([29_999, 5], [29_999, 6], [0.5, 0.5])
    result = collector.result()
    assert "confusion" not in result
    assert result["balanced_accuracy"] == 0.5
