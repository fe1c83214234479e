import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import SOURCES, open_splits
from tests.images import write_classes


def names_of(source):
    return [source.lookup(tf.constant(index))["name"].numpy().decode() for index in range(source.num_examples)]


def folder(root, **settings):
    return open_splits(DataConfig(source="folder", data_dir=str(root), **settings))


def test_flat_folder_holds_out_by_a_fixed_rule(tmp_path):
    write_classes(tmp_path, {"red": 20, "blue": 10})
    splits = folder(tmp_path, holdout=0.2)
    assert splits.train.class_names == ("blue", "red")
    train, held_out = names_of(splits.train), names_of(splits.evaluation)
    assert (len(train), len(held_out)) == (24, 6)
    assert not set(train) & set(held_out)
    assert sum("red" in name for name in held_out) == 4
    write_classes(tmp_path, {"green": 5})  # another class changes nothing for the others
    assert set(held_out) < set(names_of(folder(tmp_path, holdout=0.2).evaluation))


@pytest.mark.parametrize("eval_name", ["validation", "val", "test"])
def test_folder_with_splits(tmp_path, eval_name):
    write_classes(tmp_path / "train", {"red": 3, "blue": 2})
    write_classes(tmp_path / eval_name, {"red": 1})
    splits = folder(tmp_path)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (5, 1)
    assert int(splits.evaluation.lookup(tf.constant(0))["label"]) == 1  # red, although blue is missing there


def test_eval_split_chooses(tmp_path):
    write_classes(tmp_path / "train", {"red": 3, "blue": 2})
    write_classes(tmp_path / "validation", {"red": 1})
    write_classes(tmp_path / "test", {"red": 2, "blue": 2})
    assert folder(tmp_path).evaluation.num_examples == 1
    assert folder(tmp_path, eval_split="test").evaluation.num_examples == 4
    with pytest.raises(DataError, match="There is no folder .*tset, the split that data.eval_split names"):
        folder(tmp_path, eval_split="tset")


def test_train_only_is_held_out_from(tmp_path):
    write_classes(tmp_path / "train", {"red": 10, "blue": 10})
    splits = folder(tmp_path)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (18, 2)


def test_other_files_are_left_alone(tmp_path):
    write_classes(tmp_path, {"red": 4, "blue": 4})
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    splits = folder(tmp_path)
    assert splits.train.num_examples + splits.evaluation.num_examples == 8


def make_empty_class(root: pathlib.Path):
    write_classes(root, {"red": 3, "blue": 3})
    (root / "green").mkdir()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: root.rmdir(), "there is no such folder"),
        (lambda root: None, "has no sub-folders. Put the images of each class into a sub-folder"),
        (make_empty_class, r"There are no images \(.jpg, .*\) of 'green' in .*Add images or remove the empty folder"),
        (lambda root: write_classes(root, {"red": 5}), r"fewer than two classes: \('red',\)"),
        (lambda root: write_classes(root, {"red": 5, "blue": 1}), "Class 'blue' has only one image"),
        (
            lambda root: (
                write_classes(root / "train", {"red": 2, "blue": 2}),
                write_classes(root / "val", {"green": 1}),
            ),
            "Evaluation has images of 'green', which training does not have. The classes of training are blue, red",
        ),
    ],
)
def test_bad_folders_say_what_to_do(tmp_path, build, message):
    root = tmp_path / "images"
    root.mkdir()
    build(root)
    with pytest.raises(DataError, match=message):
        folder(root)


def test_folder_needs_a_folder():
    with pytest.raises(DataError, match="give --data_dir=FOLDER"):
        open_splits(DataConfig(source="folder"))


def test_tfds_needs_a_known_name(tmp_path):
    with pytest.raises(DataError, match="needs the name of a data set: --hparam_str=data.tfds_name=cifar10"):
        open_splits(DataConfig(source="tfds"))
    with pytest.raises(DataError, match="has no data set 'cifar_ten'"):
        open_splits(DataConfig(source="tfds", tfds_name="cifar_ten", data_dir=str(tmp_path)))


def test_digits_are_split_evenly():
    splits = open_splits(DataConfig(source="digits"))
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (4000, 1000)
    labels = [int(splits.evaluation.lookup(tf.constant(index))["label"]) for index in range(1000)]
    assert np.bincount(labels).tolist() == [100] * 10
    assert splits.train.lookup(tf.constant(0))["image"].shape == (28, 28, 1)


def test_every_source_of_the_configuration_can_be_opened():
    allowed = DataConfig.model_fields["source"].annotation.__args__
    assert set(allowed) == set(SOURCES)
