import csv

import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError, Shard
from effnetv2_keras.data.sources.slices import Slice, parse_slice
from effnetv2_keras.data.splits import open_splits
from tests.images import write_classes
from tests.records import labels_of_multi, pictures


def write_list(root, name, rows, *, heading=("path", "label")):
    with open(root / name, "w", newline="") as file:
        csv.writer(file).writerows([heading, *rows])


def write_digits(root, count=30, *, skip=0):
    """Writes JPEG files of digits; returns their names and labels."""
    (root / "images").mkdir(exist_ok=True)
    rows = []
    for number, (image, label) in enumerate(pictures(count, skip=skip)):
        name = f"images/{skip + number:04d}.jpg"
        (root / name).write_bytes(image)
        rows.append((name, label))
    return rows


def lists(root, **settings):
    return open_splits(DataConfig(source="csv", data_dir=str(root), **settings))


def records(source):
    return {record["name"].numpy().decode(): record["label"].numpy().tolist() for record in source.ordered(Shard())}


@pytest.mark.parametrize("eval_name", ["validation", "val", "test"])
def test_lists_of_two_splits(tmp_path, eval_name):
    train, evaluation = write_digits(tmp_path), write_digits(tmp_path, 8, skip=100)
    write_list(tmp_path, "train.csv", train)
    write_list(tmp_path, f"{eval_name}.csv", evaluation)
    splits = lists(tmp_path)
    assert splits.train.class_names == ("0", "1", "2")
    assert records(splits.train) == {f"{tmp_path}/{name}": label for name, label in train}
    assert records(splits.evaluation) == {f"{tmp_path}/{name}": label for name, label in evaluation}


def test_one_list_holds_out_by_a_fixed_rule(tmp_path):
    rows = write_digits(tmp_path)
    write_list(tmp_path, "all.csv", rows)
    splits = lists(tmp_path / "all.csv", holdout=0.2)
    train, held_out = records(splits.train), records(splits.evaluation)
    assert len(train) + len(held_out) == 30
    assert not train.keys() & held_out.keys()
    assert set(held_out.values()) == {0, 1, 2}
    write_list(tmp_path, "all.csv", rows[::-1])
    assert records(lists(tmp_path / "all.csv", holdout=0.2).evaluation) == held_out


def test_other_columns_paths_and_orders(tmp_path):
    rows = write_digits(tmp_path, 12)
    write_list(
        tmp_path, "all.csv", [("x", ("zero", "ten", "9")[label], tmp_path / name) for name, label in rows],
        heading=("note", "kind", "file"),
    )  # fmt: skip
    names = {"image_key": "file", "label_key": "kind"}
    assert lists(tmp_path / "all.csv", **names).train.class_names == ("9", "ten", "zero")
    (tmp_path / "labels.txt").write_text("zero\nten\n9\neleven\n")
    splits = lists(tmp_path / "all.csv", **names)
    assert splits.train.class_names == ("zero", "ten", "9", "eleven")
    assert {**records(splits.train), **records(splits.evaluation)} == {f"{tmp_path}/{name}": i for name, i in rows}


def test_whole_numbers_are_sorted_by_value(tmp_path):
    rows = write_digits(tmp_path, 12)
    write_list(tmp_path, "all.csv", [(name, ("2", "10", "1")[label]) for name, label in rows])
    assert lists(tmp_path / "all.csv").train.class_names == ("1", "2", "10")


def test_several_labels_in_a_row(tmp_path):
    rows = write_digits(tmp_path)
    write_list(tmp_path, "all.csv", [(name, "|".join(map(str, labels_of_multi(label)))) for name, label in rows])
    splits = lists(tmp_path / "all.csv", multi_label=True, label_separator="|")
    assert splits.train.multi_label
    assert splits.evaluation.multi_label
    assert splits.train.class_names == ("0", "1", "3")
    assert {**records(splits.train), **records(splits.evaluation)} == {
        f"{tmp_path}/{name}": [{0: 0, 1: 1, 3: 2}[number] for number in labels_of_multi(label)] for name, label in rows
    }
    drawn = list(splits.train.stream(seed=0, batch_size=5, steps=range(4), shard=Shard()))
    assert {len(record["label"]) for record in drawn} == {0, 1, 2}


@pytest.mark.parametrize(
    ("rows", "heading", "message"),
    [
        (
            [("a.jpg", 1, 2)],
            ("x", "y2", "label"),
            "all.csv has no column 'path'. The .* are: x, y2, label .utf-8, comma",
        ),
        (
            [("a.jpg", 1.5, 2)],
            ("path", "w", "h"),
            "images in column 'path', but no column 'label'.*w, h .*such as .*data.label_key=h",
        ),
        (
            [("images/0000.jpg", 0), ("b.jpg", 1)],
            ("path", "label"),
            "all.csv, line 3: there is no file .*/b.jpg. Paths",
        ),
        ([("images/0000.jpg", 0), ("images/0000.jpg", 1)], ("path", "label"), "line 3: .*0000.jpg is listed twice"),
        ([("images/0000.jpg", "")], ("path", "label"), "line 2: .*0000.jpg has no label. Give it one, or remove"),
        ([("images/0000.jpg", 0), ("images/0001.jpg", 1)], ("path", "label"), "Class '0', '1' has only one image"),
        ([], ("path", "label"), "There are no images"),
    ],
)
def test_bad_lists_say_what_to_do(tmp_path, rows, heading, message):
    write_digits(tmp_path, 4)
    write_list(tmp_path, "all.csv", rows, heading=heading)
    with pytest.raises(DataError, match=message):
        lists(tmp_path / "all.csv")


def test_missing_lists_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"needs --data_dir=FOLDER with train.csv, or --data_dir=LIST.csv"):
        open_splits(DataConfig(source="csv"))
    with pytest.raises(DataError, match="there is no such folder or file"):
        lists(tmp_path / "nowhere")
    with pytest.raises(DataError, match="There is no list .*/train.csv, the split that data.train_split names"):
        lists(tmp_path)
    write_list(tmp_path, "train.csv", write_digits(tmp_path))
    with pytest.raises(DataError, match="There is no list .*/tset.csv, the split that data.eval_split names"):
        lists(tmp_path, eval_split="tset")


def test_lists_that_share_an_image_are_refused(tmp_path):
    rows = write_digits(tmp_path)
    write_list(tmp_path, "train.csv", rows[:25])
    write_list(tmp_path, "test.csv", rows[20:])
    with pytest.raises(
        DataError, match="5 of 10 evaluation images are also training images, for example in .*images/00"
    ):
        lists(tmp_path)


def test_lists_with_other_labels_are_refused(tmp_path):
    rows = write_digits(tmp_path)
    write_list(tmp_path, "train.csv", [(name, label) for name, label in rows[:20] if label])
    write_list(tmp_path, "test.csv", rows[20:])
    with pytest.raises(
        DataError, match="Evaluation has images of '0', which training does not have. The classes of training are 1, 2"
    ):
        lists(tmp_path)


def test_shares_of_a_folder_are_disjoint_and_whole(tmp_path):
    write_classes(tmp_path / "train", {"red": 20, "blue": 15})
    write_classes(tmp_path / "validation", {"red": 1})

    def folder(train_split, eval_split):
        return open_splits(
            DataConfig(source="folder", data_dir=str(tmp_path), train_split=train_split, eval_split=eval_split)
        )

    splits = folder("train[20%:]", "train[:20%]")
    train, minival = records(splits.train), records(splits.evaluation)
    assert (len(train), len(minival)) == (28, 7)
    assert not train.keys() & minival.keys()
    assert set(minival.values()) == {0, 1}
    with pytest.raises(DataError, match="3 of 7 evaluation images are also training images"):
        folder("train[10%:]", "train[:20%]")
    assert folder("train[20%:]", "validation").train.num_examples == 28


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", Slice("train")),
        ("train[2%:]", Slice("train", 2)),
        ("imagenet21k[:98%]", Slice("imagenet21k", 0, 98)),
        ("a-b.c[5%:10%]", Slice("a-b.c", 5, 10)),
    ],
)
def test_slices_are_read(text, expected):
    assert parse_slice(text) == expected


@pytest.mark.parametrize("text", ["", "train[2:]", "train[2.5%:]", "train[5%:5%]", "train[:101%]", "train+test", "a/b"])
def test_bad_slices_say_how_to_write_them(text):
    with pytest.raises(DataError, match=r"Cannot parse the split .* in whole percent: data.train_split=train.2%:."):
        parse_slice(text)


@pytest.mark.parametrize("count", [1, 3, 7, 50, 1024])
def test_slices_that_meet_partition(count):
    items = list(range(count))
    for cut in range(1, 100):
        assert Slice("a", 0, cut).of(items) + Slice("a", cut).of(items) == items


def test_labels_become_vectors():
    from effnetv2_keras.data.sources.labels import label_vector

    for label, expected in ((2, [0, 0, 1]), ([0, 2], [1, 0, 1]), ([], [0, 0, 0]), ([1, 1], [0, 1, 0])):
        vector = label_vector(tf.constant(label, tf.int64), 3)
        assert vector.dtype == tf.float32
        assert vector.numpy().tolist() == expected
