"""The tables of folders, lists and records in docs/data.md: each row is tried on made data."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import Splits, open_splits
from tests.records import write_imagenet, write_tfds

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
NAMES = ("rose", "lily")


def picture(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (4, 4), (len(path.name) % 256, 20, 30)).save(path)


def classes(root: pathlib.Path, *names: str, count: int = 4) -> pathlib.Path:
    for name in names or NAMES:
        for number in range(count):
            picture(root / name / f"{number}.png")
    return root


def folder(root: pathlib.Path, **settings) -> Splits:
    return open_splits(DataConfig(data_dir=str(root), **settings))


def listed(root: pathlib.Path, text: str, encoding: str = "utf-8", **settings) -> Splits:
    for number in range(8):
        picture(root / f"{number}.png")
    (root / "list.csv").write_text(text, encoding, newline="")
    return open_splits(DataConfig(source="csv", data_dir=str(root / "list.csv"), **settings))


def rows(
    separator: str = ",", *, heading: tuple[str, ...] = ("path", "label"), suffix: str = ".png", names=NAMES
) -> str:
    lines = [heading, *((f"{number}{suffix}", names[number % 2]) for number in range(8))]
    return "".join(f"{separator.join(line)}\n" for line in lines)


def spellings(root, skip):
    classes(root / "Training")
    classes(root / "Valid", count=1)
    return folder(root)


def only_test(root, skip):
    classes(root / "train")
    classes(root / "test", count=1)
    return folder(root)


def two_trainings(root, skip):
    for name in ("train_2019", "train_2020", "val"):
        classes(root / name)
    return folder(root)


def class_called_train(root, skip):
    return folder(classes(root, "bus", "car", "train"))


def links(root, skip):
    classes(root / "data", "lily")
    classes(root / "elsewhere", "rose")
    (root / "data" / "rose").symlink_to(root / "elsewhere" / "rose")
    return folder(root / "data")


def broken_link(root, skip):
    (classes(root) / "rose" / "gone.png").symlink_to(root / "nowhere.png")
    return folder(root, unreadable=skip)


def leftovers(root, skip):
    classes(root)
    classes(root / "__MACOSX")
    classes(root / "rose" / ".ipynb_checkpoints")
    (root / "rose" / "._0.png").write_bytes(b"Mac OS X")
    return folder(root)


def no_images(root, skip):
    (classes(root) / "rose" / "notes.txt").write_text("")
    return folder(root)


def unknown_formats(root, skip):
    for number in range(9):
        (classes(root) / "rose" / f"{number}.jxl").write_bytes(b"x")
    return folder(root, unreadable=skip)


def names_that_are_not_utf_8(root, skip):
    classes(root)
    os.rename(os.fsencode(root / "rose"), os.path.join(os.fsencode(root), b"ros\xe9"))
    return folder(root)


def empty_class(root, skip):
    (classes(root) / "tulip").mkdir()
    return folder(root)


def other_texts(root, skip):
    return [
        listed(root, rows(separator), encoding)
        for separator, encoding in ((";", "utf-8"), ("\t", "utf-16"), ("|", "utf-8-sig"))
    ][-1]


def labels_without_a_class(root, skip):
    (root / "labels.txt").write_text("rose\n")
    return listed(root, rows())


def one_hot(root, skip):
    lines = ["image,rose,lily", *(f"{number}.png,{number % 2},{1 - number % 2}" for number in range(8))]
    return listed(root, "\n".join(lines))


def twice(root, skip):
    return listed(root, rows() + "0.png,rose\n")


def compressed(root, skip):
    write_imagenet(root, train=6, validation=3, shards=3)
    for path in list(root.glob("*-of-*")):
        contents = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for record in contents:
                writer.write(record)
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), num_classes=3))


def other_names(root, skip):
    write_imagenet(root, train=6, validation=3, shards=3)
    for number, path in enumerate(sorted(root.glob("*-of-*"))):
        shutil.move(path, root / f"{path.name[0]}{number}.tfrec")
    patterns = {"train_pattern": "t*.tfrec", "eval_pattern": "v*.tfrec"} if skip == "skip" else {}
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), num_classes=3, **patterns))


def missing_shard(root, skip):
    write_imagenet(root, train=6, validation=3, shards=3)
    next(root.glob("train-00001-*")).unlink()
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), num_classes=3))


def floats(root, skip):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(4, 4, 1), dtype=tf.float32),
                "label": tfds.features.ClassLabel(num_classes=2)}  # fmt: skip
    examples = [{"image": np.full((4, 4, 1), 0.5, np.float32), "label": label} for label in (0, 1)]
    write_tfds(root, "float_images", features, {"train": examples, "test": examples})
    return open_splits(DataConfig(source="tfds", tfds_name="float_images", data_dir=str(root)))


ROWS: dict[str, Callable[[pathlib.Path, str], Splits]] = {
    "splits in other usual spellings, upper or lower case": spellings,
    "a test split, but no validation split": only_test,
    "two folders that may both be the training split": two_trainings,
    "a class called `train` beside other classes": class_called_train,
    "links to folders and files": links,
    "a broken link": broken_link,
    "hidden files, and what archives and network drives leave": leftovers,
    "files that are no images": no_images,
    "a class with more files of unknown image formats than images": unknown_formats,
    "names of files and classes that are not UTF-8": names_that_are_not_utf_8,
    "an empty class": empty_class,
    "semicolons, tabs or bars; UTF-8 with a mark; UTF-16": other_texts,
    "Windows-1252": lambda root, skip: listed(root, rows(names=("rose", "lys\xe9")), "cp1252"),
    "other usual headings": lambda root, skip: listed(root, rows(heading=("File_Name", "Class"))),
    "two columns that may both be the label": lambda root, skip: listed(
        root, "path,breed,species\n" + "".join(f"{n}.png,{NAMES[n % 2]},{NAMES[n % 2]}\n" for n in range(8))
    ),
    "one column of 0 and 1 per class": one_hot,
    "paths without their suffix": lambda root, skip: listed(
        root, rows(suffix=""), path_template="{}.png" if skip == "skip" else None
    ),
    "a file that does not exist, or is listed twice": twice,
    "`labels.txt` that lacks a class": labels_without_a_class,
    "TFRecord files compressed with gzip or zlib": compressed,
    "other file names than `train-00000-of-00003`": other_names,
    "a missing file of `-of-00003`": missing_shard,
    "TensorFlow Datasets with images of floats": floats,
}
"""Makes and opens the data of a row; the second argument is ``skip`` to try what the row says of a setting."""


def documented() -> dict[str, str]:
    section = PAGE.read_text("utf-8").partition("## What is read and what is refused")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: outcome for name, outcome in cells if outcome not in ("", "---")}


def test_every_row_is_tried():
    assert list(documented()) == list(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_data_is_read_or_refused_as_documented(name, tmp_path, caplog):
    outcome, make = documented()[name], ROWS[name]
    (tmp_path / "plain").mkdir()
    with caplog.at_level(logging.INFO):
        if outcome.startswith("refused"):
            with pytest.raises(DataError):
                make(tmp_path / "plain", "error")
        else:
            splits = make(tmp_path / "plain", "error")
            assert len(splits.train.class_names) >= 2
            warned = any(record.levelno >= logging.WARNING for record in caplog.records)
            assert warned == (outcome.startswith("converted") or "with a warning" in outcome)
    if " with `data." in outcome:
        (tmp_path / "set").mkdir()
        assert make(tmp_path / "set", "skip").train.num_examples > 0
