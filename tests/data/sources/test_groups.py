"""Groups and folds of folders and lists. The image files are empty: nothing here decodes them."""

import logging
import pathlib

import pytest

from effnetv2_keras.config import Config, DataConfig
from effnetv2_keras.data.sources.base import DataAbsentError, DataError
from effnetv2_keras.data.sources.groups import name_of
from effnetv2_keras.data.splits import find_sizes, open_splits
from effnetv2_keras.errors import ConfigError

PATIENTS = {"p1": "cat", "p2": "cat", "p3": "cat", "p4": "dog", "p5": "dog", "p6": "dog"}


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def photos(root, pattern="{label}/{patient}_{number}.jpg", count=5):
    names = [
        pattern.format(label=label, patient=patient, number=number)
        for patient, label in PATIENTS.items()
        for number in range(count)
    ]
    return write(root, *names)


def write_list(path, columns="path,label,Patient", count=5):
    rows = [
        dict(path=f"images/{patient}{number}.jpg", label=label, Patient=patient, cat=+(label == "cat"),
             dog=+(label == "dog"))
        for patient, label in PATIENTS.items()
        for number in range(count)
    ]  # fmt: skip
    write(path.parent, *(row["path"] for row in rows))
    lines = [",".join(str(row[name]) for name in columns.split(",")) for row in rows]
    path.write_text("\n".join([columns, *lines]))
    return path


def names(source):
    return {pathlib.Path(path).name for path, _ in source.extents()}


def patients(root, **settings):
    """Returns the patients of the training and of the evaluation images."""
    splits = open_splits(DataConfig(data_dir=str(root), **settings))
    return [{name[:2] for name in names(source)} for source in (splits.train, splits.evaluation)]


@pytest.mark.parametrize(
    ("pattern", "group_by"),
    [
        ("{label}/{patient}_{number}.jpg", r"(p\d+)"),
        ("{label}/{patient}_{number}.jpg", "([^_]+)_"),
        ("{label}/{patient}_{number}.jpg", r"(?P<patient>p(\d+))_"),
        ("{label}/{patient}/{patient}_{number}.jpg", "folder"),
        ("{label}/more/{patient}/{patient}_{number}.jpg", "folder"),
        ("{label}/{patient}/of/{patient}_{number}.jpg", "(p[0-9])/of/"),
    ],
)
def test_images_of_a_group_stay_together_in_folders(tmp_path, caplog, pattern, group_by):
    photos(tmp_path, pattern)
    with caplog.at_level(logging.INFO, "absl"):
        train, evaluation = patients(tmp_path, group_by=group_by)
    assert (len(train), len(evaluation), len(train | evaluation)) == (4, 2, 6)
    name = "patient" if "?P" in group_by else group_by
    assert f"6 groups ({name}) of 30 images, 4 to train on, 2 to evaluate on" in caplog.text
    folds = [patients(tmp_path, group_by=group_by, folds=3, fold=fold)[1] for fold in range(3)]
    assert [len(fold) for fold in folds] == [2, 2, 2]
    assert set.union(*folds) == set(PATIENTS)


@pytest.mark.parametrize("columns", ["path,label,Patient", "path,Patient,cat,dog"])
def test_a_column_of_a_list_says_which_images_belong_together(tmp_path, caplog, columns):
    path = write_list(tmp_path / "all.csv", columns)
    with caplog.at_level(logging.INFO, "absl"):
        train, evaluation = patients(path, source="csv", group_by="patient")
    assert (len(train), len(evaluation), len(train | evaluation)) == (4, 2, 6)
    assert "6 groups (patient) of 30 images" in caplog.text
    assert patients(path, source="csv", group_by=r"(p\d)") == [train, evaluation]


def test_a_column_of_0_and_1_for_groups_is_no_class(tmp_path):
    names = [f"{number}.jpg" for number in range(8)]
    write(tmp_path, *names)
    rows = [f"{name},{number % 2},{number // 2 % 2},{1 - number // 2 % 2}" for number, name in enumerate(names)]
    (tmp_path / "all.csv").write_text("\n".join(["path,session,cat,dog", *rows]))
    settings = {"source": "csv", "data_dir": str(tmp_path / "all.csv"), "multi_label": True, "group_by": "session"}
    assert open_splits(DataConfig(**settings)).train.class_names == ("cat", "dog")


def test_a_group_in_two_splits_is_refused(tmp_path):
    photos(tmp_path, "train/{label}/{patient}_{number}.jpg")
    write(tmp_path, "val/cat/q1_1.jpg", "val/dog/q2_1.jpg")
    train, evaluation = patients(tmp_path, group_by="(^..)")
    assert (train, evaluation) == (set(PATIENTS), {"q1", "q2"})
    write(tmp_path, "val/cat/p2_7.jpg")
    message = "1 group .*is in both .*: 'p2'. For example, .*/train/cat/p2_.* and .*/val/cat/p2_7.jpg belong to 'p2'"
    for eval_split in (None, "val"):
        with pytest.raises(DataError, match=message):
            patients(tmp_path, group_by="(^..)", eval_split=eval_split)


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("(x)", "gives no group for 30 of 30 images, such as .*/cat/p1_0.jpg, .*Change the pattern"),
        ("(p[1-5])", "gives no group for 5 of 30 images, such as .*/dog/p6_0.jpg"),
        ("folder", "gives no group for 30 of 30 images"),
        ("patient", "does not say which images belong together. It must be 'folder' .*or a pattern"),
        ("(p", "cannot be read as a regular expression: .*It must be"),
        ("(p)(.)", "has 2 parts in parentheses, and each may be the group. Write the others as"),
        ("(p)", r"no evaluation image is left of 'cat' \(15 images in 1 group\), 'dog' \(15 images in 1 group\)"),
    ],
)
def test_bad_groups_say_what_to_do(tmp_path, group_by, message):
    with pytest.raises(DataError, match=message):
        patients(photos(tmp_path), group_by=group_by)


def test_bad_columns_of_groups_say_what_to_do(tmp_path):
    path = write_list(tmp_path / "all.csv")
    with pytest.raises(DataError, match=r"It must be a column of the list \(path, label, Patient\), 'folder'"):
        patients(path, source="csv", group_by="person")
    path.write_text(path.read_text().replace("images/p11.jpg,cat,p1", "images/p11.jpg,cat,"))
    with pytest.raises(DataError, match="gives no group for 1 of 30 images, such as .*/images/p11.jpg"):
        patients(path, source="csv", group_by="Patient")


def test_folds_are_made_of_training_and_validation_and_never_of_test(tmp_path, caplog):
    for split in ("Train", "val", "test"):
        write(tmp_path, *(f"{split}/{label}/{split}_{number}.jpg" for label in ("cat", "dog") for number in range(6)))

    def fold(number, **settings):
        splits = open_splits(DataConfig(data_dir=str(tmp_path), folds=4, fold=number, **settings))
        return [sorted(path for path, _ in source.extents()) for source in (splits.train, splits.evaluation)]

    with caplog.at_level(logging.INFO, "absl"):
        parts = [fold(number) for number in range(4)]
    assert "fold 3 of 4 (0 to 3) of 'Train' and 'val': 24 images, 18 to train on, 6 to evaluate on" in caplog.text
    assert len({path for _, part in parts for path in part}) == 24
    assert all("test" not in pathlib.Path(path).name for part in parts for path in part[0] + part[1])
    train, test = fold(0, eval_split="test")
    assert train == parts[0][0]
    assert {pathlib.Path(path).name[:4] for path in test} == {"test"}
    with pytest.raises(DataError, match="evaluation images are also training images"):
        fold(0, eval_split="val")
    assert all("Train" in path for part in fold(0, train_split="train[:]") for path in part)


def test_folds_of_lists_pool_labels_that_are_spelled_differently(tmp_path):
    for split, label in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        rows = [f"images/{split}{number}.jpg,{(label, 'bar')[number % 2]}" for number in range(6)]
        write(tmp_path, *(row.partition(",")[0] for row in rows))
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    splits = open_splits(DataConfig(source="csv", data_dir=str(tmp_path), folds=3, fold=2))
    assert splits.train.class_names == ("bar", "caf\u00e9")
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (8, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"folds": 5},
            "data.folds is 5 and data.fold is None, but one needs the other; write data.folds=5,",
        ),
        ({"fold": 3}, "data.folds is None and data.fold is 3, but one needs the other"),
        ({"folds": 5, "fold": 5}, "data.fold is 5, but the folds of data.folds=5 are 0 to 4"),
        ({"folds": 1, "fold": 0}, "data.folds=1: Input should be greater than or equal to 2"),
        ({"folds": 5, "fold": -1}, "data.fold=-1: Input should be greater than or equal to 0"),
        ({"folds": 5, "fold": 0, "holdout": 0.2}, "data.holdout=0.2 and data.folds=5 both choose"),
        ({"folds": 5, "fold": 0, "source": "tfds"}, "only images in class folders and lists can be divided"),
        ({"group_by": "patient", "source": "digits"}, "data.group_by is patient, but only images in class folders"),
    ],
)
def test_bad_folds_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Config().override({f"data.{name}": value for name, value in changes.items()})


def test_sizes_of_folds_are_not_known_without_the_data():
    cars = DataConfig(source="folder", tfds_name="cars196", eval_split="test")
    assert find_sizes(cars).num_train == 8144
    with pytest.raises(DataAbsentError):
        find_sizes(cars.model_copy(update={"folds": 5, "fold": 0}))


def test_groups_have_a_name():
    assert [name_of(text) for text in ("patient", "(?P<burst>.+)_", "(a)")] == ["patient", "burst", "(a)"]
