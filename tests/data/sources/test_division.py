"""How listed images are divided. Nothing here reads a file; the last test pins what earlier versions hold out."""

import collections
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.division import hold_out_groups, units_of
from effnetv2_keras.data.sources.parts import Divider
from effnetv2_keras.data.sources.slices import parse_slice

SOME = settings(max_examples=40)
CLASSES = "cat", "dog", "emu"


def of_group(path):
    return path.partition("/")[0]


@st.composite
def grouped_files(draw, most_groups=12):
    """Images ``GROUP/NUMBER.jpg`` by class; a group may have images of several classes."""
    groups = draw(st.integers(1, most_groups))
    files = {label: [] for label in CLASSES}
    for group in range(groups):
        for label in CLASSES:
            for number in range(draw(st.integers(0, 6))):
                files[label].append(f"g{group}/{label}{number}.jpg")
    return {label: paths for label, paths in files.items() if paths} or {"cat": ["g0/cat0.jpg"]}


def shuffled(files, seed):
    labels = random.Random(seed).sample(list(files), len(files))
    return {label: random.Random(seed).sample(files[label], len(files[label])) for label in labels}


def groups_in(files):
    return {path: of_group(path) for paths in files.values() for path in paths}


def paths_of(files):
    return [path for paths in files.values() for path in paths]


def fold(files, folds, number, *, groups=None, **others):
    data = DataConfig(source="csv", folds=folds, fold=number, **others)
    return Divider(data, groups).fold(files, ["train"])


def divided(function, *arguments):
    """Returns what a division returns, without the order of the images; None if it is refused."""
    try:
        parts = function(*arguments)
    except DataError:
        return None
    return [{label: sorted(paths) for label, paths in sorted(part.items())} for part in parts]


@SOME
@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.integers(2, 5), st.integers(0, 9))
def test_each_image_is_in_one_fold_and_each_class_is_spread_evenly(counts, folds, seed):
    files = {f"c{label}": [f"c{label}/{i}.jpg" for i in range(max(count, folds))] for label, count in enumerate(counts)}
    parts = [fold(files, folds, number) for number in range(folds)]
    assert sorted(path for _, part in parts for path in paths_of(part)) == sorted(paths_of(files))
    for train, part in parts:
        assert sorted(paths_of(train) + paths_of(part)) == sorted(paths_of(files))
    for label in files:
        sizes = [len(part[label]) for _, part in parts]
        assert max(sizes) - min(sizes) <= 1
    sizes = [len(paths_of(part)) for _, part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert divided(fold, shuffled(files, seed), folds, 1) == divided(fold, files, folds, 1)


@SOME
@given(grouped_files(), st.integers(2, 4), st.integers(0, 9))
def test_no_group_is_in_two_folds(files, folds, seed):
    def part(number, these=files):
        return divided(lambda: fold(these, folds, number, groups=groups_in(files)))

    parts = [part(number) for number in range(folds)]
    if None in parts:  # a class is in too few groups; then every fold is refused
        assert parts == [None] * folds
        return
    for train, evaluation in parts:
        assert not {*map(of_group, paths_of(train))} & {*map(of_group, paths_of(evaluation))}
        assert all(train[label] and evaluation[label] for label in files)
    assert sorted(path for _, one in parts for path in paths_of(one)) == sorted(paths_of(files))
    assert part(0, shuffled(files, seed)) == parts[0]


@given(st.permutations(range(12)))
@settings(max_examples=10)
def test_groups_of_one_class_and_size_are_spread_evenly(order):
    files = {label: [f"{label}{group}/{i}.jpg" for group in order for i in range(3)] for label in CLASSES}
    for number in range(4):
        _, part = fold(files, 4, number, groups=groups_in(files))
        assert [len(paths) for paths in part.values()] == [9, 9, 9]


@SOME
@given(grouped_files(), st.sampled_from([0.1, 0.3, 0.6]), st.integers(0, 9))
def test_whole_groups_are_held_out_whatever_the_order(files, share, seed):
    def part(these):
        return divided(Divider(DataConfig(source="csv", holdout=share), groups_in(these)).hold_out, these)

    parts = part(files)
    assert part(shuffled(files, seed)) == parts
    if parts is None:
        return
    train, evaluation = parts
    assert not {*map(of_group, paths_of(train))} & {*map(of_group, paths_of(evaluation))}
    assert sorted(paths_of(train) + paths_of(evaluation)) == sorted(paths_of(files))
    assert all(train[label] and evaluation[label] for label in files)


@SOME
@given(grouped_files(), st.integers(1, 9))
def test_images_of_new_classes_move_no_group(files, count):
    more = {**files, "fox": [f"new{number}/{number}.jpg" for number in range(count)]}
    held = [hold_out_groups(units_of(these, groups_in(these)), 0.2) for these in (files, more)]
    assert held[1] - held[0] <= {f"new{number}" for number in range(count)}
    assert held[0] <= held[1]


def test_about_the_share_of_each_class_is_held_out():
    files = {label: [f"{label}{group}/{i}.jpg" for group in range(40) for i in range(5)] for label in CLASSES}
    _, held = Divider(DataConfig(source="csv", holdout=0.2), groups_in(files)).hold_out(files)
    assert [len(paths) for paths in held.values()] == [40, 40, 40]


def test_a_small_class_in_large_groups_is_evaluated_too():
    files = {"cat": [f"g{group}/{i}.jpg" for group in range(20) for i in range(9)], "dog": ["g3/d.jpg", "g9/d.jpg"]}
    train, held = Divider(DataConfig(source="csv"), groups_in(files)).hold_out(files)
    assert [len(train["dog"]), len(held["dog"])] == [1, 1]


def test_a_share_takes_whole_groups():
    files = {"cat": [f"g{group}/{i}.jpg" for group in range(20) for i in range(5)]}
    data = DataConfig(source="csv", train_split="train[30%:]", eval_split="train[:30%]")
    divider = Divider(data, groups_in(files))
    train = divider.share(files, parse_slice(data.train_split), "training")
    evaluation = divider.share(files, parse_slice(data.eval_split), "evaluation")
    divider.check_apart(train, evaluation)
    assert (len(train["cat"]), len(evaluation["cat"])) == (70, 30)


def test_rare_labels_of_several_are_spread_evenly():
    rng = random.Random(3)
    names = [f"{number}.jpg" for number in range(200)]
    files = collections.defaultdict(list)
    for name in names:
        files[";".join(label for label in "abcdefgh" if rng.random() < 0.3)].append(name)
    wanted = collections.Counter(label for written, paths in files.items() for label in written * len(paths))
    for number in range(5):
        _, part = fold(dict(files), 5, number, multi_label=True)
        found = collections.Counter(label for written, paths in part.items() for label in written * len(paths))
        assert all(abs(found[label] - wanted[label] / 5) <= 1 for label in "abcdefgh")
        assert len(paths_of(part)) == pytest.approx(40, abs=1)


@pytest.mark.parametrize(
    ("files", "groups", "message"),
    [
        (
            {"cat": ["a", "b", "c"], "dog": [*"ABCDEFG"]},
            None,
            r"needs images of each class in each fold, .* too few of 'cat' \(3 images\). Use at most 3 folds",
        ),
        (
            {"cat": ["p/1", "p/2"], "dog": [f"{group}/1" for group in range(9)]},
            of_group,
            r"needs groups of each class .* 'cat' \(2 images in 1 group\). Use fewer folds, add groups",
        ),
    ],
)
def test_too_many_folds_name_the_classes(files, groups, message):
    with pytest.raises(DataError, match=message):
        fold(files, 5, 0, groups=groups and groups_in(files))


def test_a_class_in_one_group_cannot_be_held_out():
    files = {"cat": ["p1/1.jpg", "p1/2.jpg"], "dog": ["p2/1.jpg", "p3/1.jpg"]}
    message = r"data.group_by=patient, no evaluation image is left of 'cat' \(2 images in 1 group\).*of other groups"
    with pytest.raises(DataError, match=message):
        Divider(DataConfig(source="csv", group_by="patient"), groups_in(files)).hold_out(files)


def test_rare_combinations_of_labels_that_are_all_held_out_are_pointed_out(caplog):
    files = {"a": [*"123456789"], "b": [*"ABCDEFGHI"], "a;b": ["x"], "b;a": ["y"], "b;b": ["z"], "a;a": ["w"]}
    Divider(DataConfig(source="csv", multi_label=True), None).hold_out(files)
    assert "6 of 22 images are held out, more than data.holdout=0.1 says" in caplog.text


def test_the_choice_of_earlier_versions_stays():
    files = {label: [f"/data/{label}/IMG_{number}.jpg" for number in range(9)] for label in CLASSES}
    _, held = Divider(DataConfig(holdout=0.2), None).hold_out(files)
    assert held == {label: [f"/data/{label}/IMG_{number}.jpg" for number in (0, 8)] for label in CLASSES}
