"""Average precision against scikit-learn's: exact while the scores are kept, within its bound beyond."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from effnetv2_keras.training.average_precision import AveragePrecision


def make_scores(*, images=400, classes=7, distance=2.0, spread=1.0, seed=0, ties=False):
    """Scores that tell the classes apart to some degree; the last class has no image."""
    random = np.random.default_rng(seed)
    labels = random.random((images, classes)) < np.linspace(0.01, 0.5, classes)
    labels[:, -1] = False
    labels[0, 0] = True
    scores = ((random.normal(size=labels.shape) + distance * labels - 3) * spread).astype(np.float32)
    return (np.round(scores) if ties else scores), labels


def gathered(scores, labels, *, batch=64, **settings):
    metric = AveragePrecision(labels.shape[1], **settings)
    for start in range(0, len(scores), batch):
        part = slice(start, start + batch)
        metric.update(scores[part], labels[part].astype(np.float32), np.ones(len(scores[part])))
    return metric.result()


def expected(scores, labels):
    """By scikit-learn: of each class with an image, and of all pairs."""
    known = labels.any(0)
    per_class = [average_precision_score(labels[:, number], scores[:, number]) for number in np.flatnonzero(known)]
    return np.array(per_class), average_precision_score(labels.ravel(), scores.ravel())


@pytest.mark.parametrize("ties", [False, True])
def test_kept_scores_give_what_scikit_learn_does(ties):
    scores, labels = make_scores(ties=ties)
    figures = gathered(scores, labels)
    per_class, overall = expected(scores, labels)
    np.testing.assert_allclose(figures["average_precision"][:-1], per_class, rtol=1e-12)
    assert np.isnan(figures["average_precision"][-1])
    assert figures["map"] == pytest.approx(per_class.mean(), rel=1e-12)
    assert figures["global_ap"] == pytest.approx(overall, rel=1e-12)
    assert figures["num_positive"].tolist() == labels.sum(0).tolist()
    assert not {"map_error", "global_ap_error"} & figures.keys()
    assert 0.05 < per_class.min() < per_class.max() < 0.99


@pytest.mark.parametrize(
    ("settings", "largest_error"),
    [
        ({}, 2e-3),
        ({"ties": True}, 0.4),  # all in one level, which the bound cannot know
        ({"images": 5000, "distance": 4.0}, 1e-3),
        ({"images": 5000, "spread": 0.001}, 0.2),  # few levels hold all scores
        ({"images": 2000, "spread": 30.0}, 0.5),  # most scores are beyond the outermost levels
        pytest.param({"images": 300, "classes": 4000}, 0.05, marks=pytest.mark.slow),  # 8,388 levels
    ],
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_rounded_scores_stay_within_their_bound(settings, largest_error, seed):
    scores, labels = make_scores(**settings, seed=seed)
    figures = gathered(scores, labels, kept_scores=100 * labels.shape[1])
    per_class, overall = expected(scores, labels)
    assert abs(figures["map"] - per_class.mean()) <= figures["map_error"] + 1e-12
    assert abs(figures["global_ap"] - overall) <= figures["global_ap_error"] + 1e-12
    assert figures["map_error"] < largest_error
    assert figures["num_positive"].tolist() == labels.sum(0).tolist()


def test_rounding_leaves_the_figures_close():
    scores, labels = make_scores(images=20_000, distance=2.5)
    figures = gathered(scores, labels, batch=512, kept_scores=10_000)
    per_class, overall = expected(scores, labels)
    assert figures["map"] == pytest.approx(per_class.mean(), abs=3e-5)
    assert figures["global_ap"] == pytest.approx(overall, abs=1e-6)
    np.testing.assert_allclose(figures["average_precision"][:-1], per_class, atol=3e-4)


def test_a_level_counts_as_the_mean_of_all_orders():
    """Three images above, a hit among them; five in one level, two of them hits."""
    labels = np.array([0, 1, 0, 1, 1, 0, 0, 0], bool)
    scores = np.array([3, 2, 1, *[0.0001 * number for number in range(5)]])
    figures = gathered(scores[:, None].astype(np.float32), labels[:, None], kept_scores=0)
    every = [
        average_precision_score(labels, np.concatenate([scores[:3], order]))
        for order in itertools.permutations(scores[3:])
    ]
    assert figures["map"] == pytest.approx(np.mean(every), rel=1e-9)
    first = (1 / 2 + 2 * 3 / 5) / 3  # both hits have the precision of the second, as if they were one
    assert figures["map_error"] == pytest.approx(max(first - np.mean(every), np.mean(every) - min(every)), rel=1e-9)


@pytest.mark.parametrize("kept_scores", [10**6, 50])
def test_padding_counts_nothing_and_nan_is_last(kept_scores):
    scores, labels = make_scores(images=60)
    padded = AveragePrecision(labels.shape[1], kept_scores=kept_scores)
    for row, label in zip(scores, labels):
        padded.update([row, row + 9], [label, ~label], [1.0, 0.0])
    figures = padded.result()
    assert figures["map"] == pytest.approx(gathered(scores, labels, kept_scores=kept_scores)["map"], rel=1e-12)
    unknown = np.where(labels & (np.arange(60) % 2 == 0)[:, None], np.nan, scores)
    lowest = np.where(np.isnan(unknown), -1e30, unknown)
    found = gathered(unknown, labels, kept_scores=kept_scores)
    assert found["map"] == pytest.approx(gathered(lowest, labels, kept_scores=kept_scores)["map"], rel=1e-12)


@pytest.mark.parametrize("kept_scores", [10**6, 10])
def test_without_any_label_there_is_no_figure(kept_scores):
    figures = gathered(np.zeros((30, 3), np.float32), np.zeros((30, 3), bool), kept_scores=kept_scores)
    assert figures.keys() == {"average_precision", "num_positive"}
    assert np.isnan(figures["average_precision"]).all()
    assert gathered(np.zeros((0, 3), np.float32), np.zeros((0, 3), bool)).keys() == figures.keys()
