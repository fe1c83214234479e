"""Training that draws the images of rare classes more often: how often, in which order, and from any step alike."""

import functools

import numpy as np
import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.data.sources.balanced import BalancedSource, balanced, shares
from effnetv2_keras.data.sources.base import ArraySource, DataError, FileSource, Shard
from effnetv2_keras.data.sources.counts import counts_of, known_counts
from effnetv2_keras.errors import ConfigError
from tests.data.test_sharding import Numbers

COUNTS = (90, 9, 1)
WHOLE = Shard()


def source_of(counts=COUNTS):
    """Arrays without pixels worth mentioning, whose labels are not in order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return ArraySource(np.zeros([len(labels), 1, 1, 3], np.uint8), labels, [f"class {n}" for n in range(len(counts))])


def drawn(source, *, batch_size, steps, seed=0, shard=WHOLE):
    """Returns image and earlier draws, ``[n, 2]``, and the labels, ``[n]``."""
    records = source.stream(seed=seed, batch_size=batch_size, steps=steps, shard=shard)
    rows = [(int(r["index"]), int(r["epoch"]), int(r["label"])) for r in records.as_numpy_iterator()]
    return np.array(rows)[:, :2], np.array(rows)[:, 2]


@functools.cache
def long_run(strength):
    """Six epochs of 100 images."""
    return drawn(balanced(source_of(), strength), batch_size=100, steps=range(6))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_classes_are_drawn_in_their_shares(strength):
    expected = np.array(COUNTS) ** (1 - strength) / np.sum(np.array(COUNTS) ** (1 - strength))
    np.testing.assert_allclose(shares(np.array(COUNTS), strength), expected)
    _, labels = long_run(strength)
    for end in range(100, 700, 100):  # at the end of each epoch, rounded up or down
        assert np.abs(np.bincount(labels[:end], minlength=3) - expected * end).max() < 1
    for end in (30, 50, 150, 250):  # within an epoch as if by chance: 3 sigma
        found = np.bincount(labels[:end], minlength=3)
        assert (np.abs(found - end * expected) <= 3 * np.sqrt(end * expected * (1 - expected))).all()


def test_the_images_of_a_class_are_drawn_equally_often_and_never_twice_alike():
    rows, _ = long_run(1.0)
    labels = source_of().known_labels
    for end in range(100, 700, 100):
        often = np.bincount(rows[:end, 0], minlength=100)
        for label in range(3):
            assert np.ptp(often[labels == label]) <= 1
    assert len({tuple(row) for row in rows}) == len(rows)  # so no image is augmented twice in the same way


def test_every_image_is_drawn_in_the_epochs_that_the_source_names():
    source = balanced(source_of(), 1.0)
    assert source.epochs_for_all == 6  # of 100 images, a third of 90 each
    assert len(np.unique(long_run(1.0)[0][:, 0])) == 100
    assert source_of().epochs_for_all == balanced(source_of(), 0.0).epochs_for_all == 1


def test_the_order_is_new_in_each_epoch_and_with_each_seed():
    source = source_of((10, 10))
    rows, labels = drawn(balanced(source, 1.0), batch_size=20, steps=range(2))
    assert sorted(rows[:20, 0]) == sorted(rows[20:, 0]) == list(range(20))  # equal classes: nothing repeats
    assert list(rows[:20, 0]) != list(rows[20:, 0])
    assert list(labels[:20]) != list(labels[20:])
    assert list(drawn(balanced(source, 1.0), batch_size=20, steps=range(1), seed=1)[0][:, 0]) != list(rows[:20, 0])
    assert balanced(source, 0.0) is source


def test_resumed_and_shared_streams_are_those_of_one_worker():
    source = balanced(source_of((7, 4, 2)), 0.7)
    rows, labels = drawn(source, batch_size=4, steps=range(9))
    resumed, _ = drawn(source, batch_size=4, steps=range(5, 9))
    np.testing.assert_array_equal(resumed, rows[20:])
    every_other, _ = drawn(source, batch_size=4, steps=range(1, 9, 2))  # as one of two data services makes them
    np.testing.assert_array_equal(every_other, rows.reshape(9, 4, 2)[1::2].reshape(-1, 2))
    halves = [drawn(source, batch_size=4, steps=range(9), shard=Shard(2, worker))[0] for worker in range(2)]
    np.testing.assert_array_equal(np.concatenate([half.reshape(9, 2, 2) for half in halves], 1).reshape(-1, 2), rows)
    np.testing.assert_array_equal(labels, source.known_labels[rows[:, 0]])


def test_a_class_without_training_images_is_never_drawn():
    images, labels = np.zeros([8, 1, 1, 3], np.uint8), np.array([0] * 6 + [2] * 2)
    _, found = drawn(BalancedSource(ArraySource(images, labels, ("a", "b", "c")), 1.0), batch_size=4, steps=range(4))
    assert np.bincount(found).tolist() == [8, 0, 8]


def test_what_cannot_be_balanced_is_refused():
    assert balanced(Numbers(4), 0.0).num_examples == 4
    with pytest.raises(DataError, match=r"balanced_sampling=0.5 needs images that can be read in any order.*class_wei"):
        balanced(Numbers(4), 0.5)
    several = ArraySource(np.zeros([2, 1, 1, 3], np.uint8), np.eye(2, dtype=bool), ("a", "b"))
    with pytest.raises(DataError, match=r"balanced_sampling=1 cannot be used where images have several.*sigmoid_focal"):
        balanced(several, 1.0)


@pytest.mark.parametrize(("written", "number"), [("true", 1), ("False", 0), (True, 1), ("0.25", 0.25), (0, 0)])
def test_the_setting_is_a_number_or_a_truth(written, number):
    assert Config().override({"data.balanced_sampling": written}).data.balanced_sampling == number


@pytest.mark.parametrize("written", ["2", "-0.5", "yes, please"])
def test_other_values_of_the_setting_are_refused(written):
    with pytest.raises(ConfigError, match=r"data.balanced_sampling=.*1 \(or true\) draws all classes equally often"):
        Config().override({"data.balanced_sampling": written})


def test_classes_are_counted_without_reading_what_is_known(caplog):
    files = FileSource(["a.jpg", "b.jpg", "c.jpg"], [[0, 1], [1], []], ("a", "b", "c"))
    arrays = ArraySource(np.zeros([2, 1, 1, 3], np.uint8), np.array([[1, 1], [0, 1]], bool), ("a", "b"))
    assert known_counts(files).tolist() == [1, 2, 0]
    assert known_counts(arrays).tolist() == [1, 2]
    assert known_counts(source_of()).tolist() == list(COUNTS)
    stream = Numbers(10)
    assert known_counts(stream) is None
    with caplog.at_level("INFO"):
        assert counts_of(stream).tolist() == known_counts(stream).tolist() == [4, 3, 3]
        assert counts_of(stream).tolist() == [4, 3, 3]
    assert [record.getMessage() for record in caplog.records].count(
        "Reading the labels of 10 images, to count their classes."
    ) == 1


def test_a_wrong_label_is_found_while_counting():
    stream = Numbers(10)
    stream.class_names = ("a", "b")
    with pytest.raises(DataError, match=r"2 has the label 2, but the labels of 2 classes are 0 to 1"):
        counts_of(stream)
