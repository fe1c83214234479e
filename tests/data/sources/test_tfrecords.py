import logging
import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.pipeline import InputPlan, eval_input, single_replica, train_input
from effnetv2_keras.data.samples import sample_images
from effnetv2_keras.data.sources.base import DataError, Shard
from effnetv2_keras.data.sources.shards import compression_of
from effnetv2_keras.data.sources.tfrecords import _find_splits
from effnetv2_keras.data.splits import find_splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.progressive import Stage
from tests.records import example, labels_of_multi, pictures, write_imagenet, write_imagenet21k, write_shards

WHOLE = Shard()


def imagenet(root, **settings):
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), **{"num_classes": 3, **settings}))


def imagenet21k(root, **settings):
    fixed = {"image_key": "image", "label_key": "labels", "first_label": 0, "multi_label": True, "num_classes": 4}
    splits = {"train_split": "imagenet21k[20%:]", "eval_split": "imagenet21k[:20%]"}
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), **{**fixed, **splits, **settings}))


def indices(source, *, seed=0, batch_size=5, first_step=0, end_step=10, shard=WHOLE):
    stream = source.stream(seed=seed, batch_size=batch_size, steps=range(first_step, end_step), shard=shard)
    return [int(record["index"]) for record in stream]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_imagenet(tmp_path_factory.mktemp("imagenet"))


def test_records_are_the_images_and_labels_that_were_written(root):
    splits = imagenet(root)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (24, 13)
    assert splits.train.class_names == ("0", "1", "2")
    for source, written in ((splits.train, pictures(24)), (splits.evaluation, pictures(13, skip=1000))):
        found = [(record["image"].numpy(), int(record["label"])) for record in source.ordered(Shard())]
        assert sorted(found) == sorted(written)


@pytest.mark.parametrize(("train", "evaluation"), [("Train", "val"), ("training", "valid"), ("my_train", "my_test")])
def test_other_spellings_of_the_shards(root, tmp_path, train, evaluation):
    for path in root.iterdir():
        name = path.name.replace("train-", f"{train}-").replace("validation-", f"{evaluation}-")
        (tmp_path / name).symlink_to(path)
    splits = imagenet(tmp_path)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (24, 13)
    assert imagenet(tmp_path, train_split="train[25%:]").train.num_examples == 18
    with pytest.raises(DataError, match="has no files validation-"):
        imagenet(tmp_path, eval_split="validation")


def test_names_of_classes_come_from_a_file(root, tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "labels.txt").write_text("tench\ngoldfish\nshark\n")
    assert imagenet(tmp_path, num_classes=None).evaluation.class_names == ("tench", "goldfish", "shark")
    with pytest.raises(DataError, match=r"num_classes is 5, but the data has 3 classes.*data.num_classes=3"):
        imagenet(tmp_path, num_classes=5)
    with pytest.raises(DataError, match=r"labels.txt, one per line, or set their number: .*data.num_classes=1000"):
        imagenet(root, num_classes=None)
    (tmp_path / "labels.txt").write_text("tench\ntench\nshark\n")
    with pytest.raises(DataError, match="contains 'tench' more than once. Each line must name a different class"):
        imagenet(tmp_path)


@pytest.mark.parametrize("buffer", [4, 100])
def test_order_is_a_function_of_seed_and_epoch(root, buffer):
    source = imagenet(root, shuffle_buffer=buffer).train
    order = indices(source)  # 50 of 24
    assert sorted(order[:24]) == sorted(order[24:48]) == list(range(24))
    assert order[:24] != order[24:48]
    for step in (1, 5, 9):
        assert indices(source, first_step=step) == order[5 * step :]
    tf.random.set_seed(7)
    assert indices(source) == order
    assert indices(source, seed=1) != order
    by_number = {number: record["image"].numpy() for number, record in enumerate(source.ordered(Shard()))}
    stream = source.stream(seed=0, batch_size=5, steps=range(5), shard=Shard())
    assert all(by_number[int(record["index"])] == record["image"].numpy() for record in stream)


def test_workers_share_an_epoch_and_an_evaluation(root):
    splits = imagenet(root)
    shares = [indices(splits.train, batch_size=4, end_step=6, shard=Shard(2, worker)) for worker in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(24))
    parts = [list(splits.evaluation.ordered(Shard(3, worker))) for worker in range(3)]
    assert len({record["name"].numpy() for part in parts for record in part}) == 13


def test_minival_is_a_share_of_the_shards(root):
    splits = imagenet(root, train_split="train[:50%]", eval_split="train[50%:75%]")
    train, minival = ({path for path, _ in source.extents()} for source in (splits.train, splits.evaluation))
    assert len(train) == 2
    assert len(minival) == 1
    assert not train & minival
    images = [{record["image"].numpy() for record in source.ordered(Shard())}
              for source in (splits.train, splits.evaluation)]  # fmt: skip
    assert (len(images[0]), len(images[1])) == (12, 6)
    assert not images[0] & images[1]


def test_a_share_of_the_shards_that_loses_a_class_is_refused(root):
    with pytest.raises(
        DataError, match=r"eval_split=train.:25%., no evaluation image is left of '0' \(7 for training\)"
    ):
        imagenet(root, train_split="train[25%:]", eval_split="train[:25%]")
    with pytest.raises(
        DataError, match=r"train_split=train.:25%., no training image is left of '0' \(\d for evaluation"
    ):
        imagenet(root, train_split="train[:25%]")


@pytest.mark.parametrize("eval_split", ["train[:30%]", "train"])
def test_splits_that_overlap_are_refused(root, eval_split):
    with pytest.raises(
        DataError, match=r"of \d+ evaluation images are also training images, for example in .*train-00000"
    ):
        imagenet(root, eval_split=eval_split)


def test_several_labels_become_a_multi_hot_vector(tmp_path):
    splits = imagenet21k(write_imagenet21k(tmp_path))
    assert splits.train.multi_label
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (32, 8)
    written = {image: labels_of_multi(label) for image, label in pictures(40)}
    for record in splits.evaluation.ordered(Shard()):
        assert record["label"].numpy().tolist() == written[record["image"].numpy()]
    plan = InputPlan(DataConfig(), 8, None, UnreadableImages("error"))
    batches = list(single_replica(eval_input(splits.evaluation, plan, image_size=16)))
    assert [tuple(batch["label"].shape) for batch in batches] == [(8, 4)]
    assert sorted(map(tuple, batches[0]["label"].numpy())) == sorted(
        tuple(float(number in written[record["image"].numpy()]) for number in range(4))
        for record in splits.evaluation.ordered(Shard())
    )
    for alpha in (0.0, 0.4):
        stage = Stage(0, 0, 4, 16, 0.0, alpha, alpha, 0.0)
        labels = [
            batch["label"].numpy()
            for batch in single_replica(train_input(splits.train, plan, stage=stage, seed=0, first_step=0))
        ]
        assert labels[0].shape == (8, 4)
        assert labels[0].dtype == np.float32
        total = sum(len(labels_of_multi(label)) for image, label in pictures(40)) - batches[0]["label"].numpy().sum()
        if not alpha:
            assert np.concatenate(labels).sum() == total
            assert set(np.unique(labels)) == {0.0, 1.0}
        else:
            assert 0 < np.concatenate(labels).sum() < 2 * total


def one_record(root, **changes):
    """Makes one record of the validation split: of class 1, with these changes."""
    image, label = pictures(1, skip=1200)[0]
    features = {"image__encoded": image, "image__class__label": label + 1, **changes}
    for path in root.glob("validation-*"):
        path.unlink()
    record = example(**{name: value for name, value in features.items() if value is not None})
    write_shards(root, "validation", [record], 1)


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


SHARD = "train-00002-of-00004"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: one_record(root, image__class__label=0),
            "Record 0 of .*validation-.* has the label 0, but with 3 classes and data.first_label=1 labels are 1 to 3",
        ),
        (lambda root: one_record(root, image__class__label=4), "Record 0 of .*validation-.* has the label 4"),
        (
            lambda root: one_record(root, image__class__label=[1, 2]),
            "has 2 labels, but must have one. If images have several labels, set data.multi_label=true",
        ),
        (
            lambda root: one_record(root, image__class__label=b"1"),
            "has the feature 'image/class/label' as bytes_list, but must have it as int64_list",
        ),
        (
            lambda root: one_record(root, image__encoded=None, jpeg=b"x"),
            "has no feature 'image/encoded', but must have it as bytes_list. Its features are image/class/label "
            ".int64_list., jpeg .bytes_list.. Set data.image_key to jpeg",
        ),
        (
            lambda root: one_record(root, image__class__label=1, image__class__synset=b"n01443537"),
            "Label 1 is 'n01440764' in .*train-.*, but 'n01443537' in .*validation-.*numbered in a different order",
        ),
        (
            lambda root: one_record(root, image__class__label=1, image__class__synset=b"ros\xe9"),
            "Label 1 is 'n01440764' in .*, but 'ros\ufffd' in",
        ),
        (lambda root: cut(root / SHARD, 0), f"The shard .*{SHARD} is empty. Write or copy it again"),
        (lambda root: cut(root / SHARD, -9), f"{SHARD} is not a complete TFRecord file .* damaged at record 5. Write"),
        (lambda root: (root / SHARD).write_text("no records at all, but text"), f"{SHARD} is not a complete TFRecord"),
        (
            lambda root: one_record(root, image__encoded=None, raw=b"x", photo=b"GIF89a", two=[b"a", b"b"]),
            "photo .bytes_list., raw .bytes_list., two .bytes_list.. Set data.image_key to photo$",
        ),
        (lambda root: one_record(root, image__class__label=None, a=[1, 2], b=3), "Set data.label_key to b$"),
        (lambda root: one_record(root, image__class__label=None), "None can be data.label_key; write one.$"),
        (lambda root: (root / SHARD).unlink(), "1 of 4 shards train-. are missing: 00002. Copy what is missing"),
        (
            lambda root: [(root / f"train-{i:05d}-of-00004").unlink() for i in (0, 3)],
            "2 of 4 shards train-. are missing: 00000, 00003. .*such as data.train_pattern=train-. or data.eval",
        ),
        (
            lambda root: shutil.copy(root / SHARD, root / "train-00000-of-00001"),
            "the shards train-. are from several sets, -of-00001 and -of-00004, which may have the same records",
        ),
        (lambda root: shutil.copy(root / SHARD, f"{root / SHARD}.gz"), "shards train-. have the number 00002 twice"),
        (
            lambda root: [path.unlink() for path in root.glob("validation-*")],
            "has no files validation-.. It has train-.*. Put the TFRecord shards there as validation-00000-of-01024",
        ),
    ],
)
def test_bad_records_say_what_to_do(tmp_path, damage, message):
    damage(write_imagenet(tmp_path))
    with pytest.raises(DataError, match=message):
        imagenet(tmp_path)


def renamed(root, compression=""):
    """Writes three files of records as competitions name them, compressed or not."""
    write_imagenet(root / "plain", train=6, validation=3, shards=2)
    for split, folder in (("train", "train"), ("validation", "val")):
        (root / folder).mkdir()
        for number, path in enumerate(sorted((root / "plain").glob(f"{split}-*"))):
            copy = str(root / folder / f"{number:02d}-192x192-798.tfrec")
            with tf.io.TFRecordWriter(copy, tf.io.TFRecordOptions(compression)) as writer:
                for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                    writer.write(record)
    (root / "train" / "._00-192x192-798.tfrec").write_bytes(b"Mac OS X")
    shutil.rmtree(root / "plain")
    return root


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_compressed_files_and_patterns(tmp_path, compression):
    patterns = {"train_pattern": "train/*.tfrec", "eval_pattern": "val/*.tfrec"}
    splits = imagenet(renamed(tmp_path, compression), **patterns)
    assert {file.compression for file in splits.train.files} == {compression}
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (6, 3)
    assert {record["image"].numpy() for record in splits.train.ordered(WHOLE)} == {image for image, _ in pictures(6)}
    assert sorted(indices(splits.train, batch_size=2, end_step=3)) == list(range(6))
    assert splits.train.check_integrity() is None
    cut(tmp_path / "train" / "01-192x192-798.tfrec", 700)
    assert "01-192x192-798.tfrec is damaged at record" in splits.train.check_integrity()
    with pytest.raises(DataError, match=r"01-192x192-798.tfrec is not a complete TFRecord file .*damaged at record \d"):
        imagenet(tmp_path, **patterns)


def test_shares_of_a_pattern_and_files_that_no_pattern_names(tmp_path, caplog):
    renamed(tmp_path)
    shares = {"train_pattern": "**/0*.tfrec", "train_split": "all[50%:]", "eval_split": "all[:50%]"}
    splits = find_splits(DataConfig(source="tfrecord", data_dir=str(tmp_path), num_classes=3, **shares))
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (3, 6)
    with pytest.raises(
        DataError, match=r"no files train-\*. It has train/\*-\*x\*-\*.tfrec, val/.* or give patterns of"
    ):
        imagenet(tmp_path)
    with pytest.raises(
        DataError, match=r"no files tran/\*. It has train/.*. Give patterns of the files: data.train_patt"
    ):
        imagenet(tmp_path, train_pattern="tran/*")
    with pytest.raises(DataError, match=r"pattern '/x/\*' cannot be used: .*Write one relative to --data_dir, such as"):
        imagenet(tmp_path, train_pattern="/x/*")
    (tmp_path / "val" / "00-192x192-798.tfrec").rename(tmp_path / "val" / "a-00000-of-00002")
    splits = imagenet(tmp_path, train_pattern="train/*.tfrec", eval_pattern="val/a*")
    assert "1 of 2 shards a-* are missing: 00001" in caplog.text


def test_names_of_splits_are_found_before_suffixes(tmp_path):
    for name in ("Train-00000-of-00001.tfrecord.gz", "val-00000-of-00001.gz"):
        (tmp_path / name).touch()
    data = DataConfig(source="tfrecord", data_dir=str(tmp_path))
    assert _find_splits(tmp_path, data) == [("Train", None), ("val", None)]
    shares = data.model_copy(update={"train_split": "train[2%:]", "eval_split": "train[:2%]"})
    assert _find_splits(tmp_path, shares) == [("Train[2%:]", None), ("Train[:2%]", None)]


def test_a_length_that_looks_like_a_compressed_file_is_none(tmp_path):
    for length in (0x9C78, 0x0178):
        with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
            writer.write(b"\0" * length)
        assert (tmp_path / "a").read_bytes()[:1] == b"\x78"
        assert compression_of(str(tmp_path / "a")) == ""


def test_a_folder_whose_name_is_not_utf_8(tmp_path):
    root = tmp_path / os.fsdecode(b"ros\xe9")
    write_imagenet(tmp_path / "rose", train=4, validation=2, shards=1)
    (tmp_path / "rose").rename(root)
    splits = imagenet(root)
    assert len(list(splits.train.ordered(WHOLE))) == 4
    assert splits.train.check_integrity() is None
    assert b"ros\xe9/train" in next(iter(splits.train.ordered(WHOLE)))["name"].numpy()


def test_records_are_named_by_their_place_in_a_file(root):
    names = {}
    for record in imagenet(root).train.ordered(Shard()):
        names[record["image"].numpy()] = record["name"].numpy().decode()
    written = pictures(24)
    for number, (image, _) in enumerate(written):  # they were dealt out over four files
        assert names[image] == f"record {number // 4} of {root}/train-{number % 4:05d}-of-00004"


@pytest.mark.parametrize(
    "wrong", [pytest.param(0, marks=pytest.mark.slow), 4, pytest.param(-7, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("evaluate", [True, False])
def test_a_wrong_label_further_on_names_its_record(tmp_path, wrong, evaluate):
    write_imagenet(tmp_path)
    split = "validation" if evaluate else "train"
    for path in tmp_path.glob(f"{split}-*"):
        path.unlink()
    image, _ = pictures(1)[0]
    records = [example(image__encoded=image, image__class__label=wrong if number == 15 else 1) for number in range(16)]
    paths = write_shards(tmp_path, split, records, 2)  # the last record of the second file
    splits, plan = imagenet(tmp_path), InputPlan(DataConfig(), 8, None, UnreadableImages("skip"))
    make = (
        eval_input(splits.evaluation, plan, image_size=16)
        if evaluate
        else train_input(splits.train, plan, stage=Stage(0, 0, 2, 16, 0, 0, 0, 0), seed=0, first_step=0)
    )
    message = (
        f"Record 7 of {paths[1]} has the label {wrong}, but with 3 classes and data.first_label=1 labels are 1 to 3"
    )
    with pytest.raises(DataError, match=message), plan.unreadable.explained():
        list(single_replica(make))
    images = sample_images(splits.evaluation if evaluate else splits.train, DataConfig(), image_size=16, count=16)
    assert len(list(images)) == 16  # that need no label


def test_folder_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"DIR/train-00000-of-01024 .*ILSVRC2012_img_train.tar and ILSVRC2012_img_val"):
        open_splits(DataConfig(source="tfrecord", num_classes=1000))
    with pytest.raises(DataError, match="there is no such folder"):
        imagenet(tmp_path / "nowhere")


def test_many_records_open_at_once(tmp_path):
    image, _ = pictures(1)[0]
    record = example(image__encoded=image, image__class__label=1)
    write_shards(tmp_path, "train", [record] * 60_000, 16)
    write_shards(tmp_path, "validation", [record], 1)
    start = time.perf_counter()
    assert imagenet(tmp_path).train.num_examples == 60_000
    assert time.perf_counter() - start < 10


def test_files_beside_the_shards_are_left_out(root, tmp_path, caplog):
    shutil.copytree(root, tmp_path / "data")
    for name in ("train-labels.csv", "train-info.json", "validation-1.jpg"):
        (tmp_path / "data" / name).write_text("x")
    with caplog.at_level(logging.INFO):
        splits = imagenet(tmp_path / "data")
    assert splits.train.num_examples == imagenet(root).train.num_examples
    assert "not named like TFRecord files: train-info.json, train-labels.csv" in caplog.text


def test_parts_whose_numbers_are_in_their_names_are_not_one_split(tmp_path):
    for name in ("ld_train00-8.tfrec", "ld_train01-8.tfrec", "ld_test00-8.tfrec"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"ld_train00-\* may be .* ld_train01-\*.*set data.train_pattern=ld_train\*-\*"):
        imagenet(tmp_path, num_classes=3)
    with pytest.raises(DataError, match="ld_train01-8.tfrec is empty"):
        imagenet(tmp_path, num_classes=3, train_split="ld_train01", eval_split="ld_test00")


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        (("Train.tfrecords", "Valid.tfrecords"), "train_pattern=Train.tfrecords,data.eval_pattern=Valid.tfrecords$"),
        (("train_0.tfrec", "val_0.tfrec"), r"train_pattern=train_\*.tfrec,data.eval_pattern=val_\*.tfrec$"),
        (("a/train/0.tfrec", "a/test/1.tfrec"), r"train_pattern=a/train/\*.tfrec,data.eval_pattern=a/test/\*.tfrec$"),
    ],
)
def test_patterns_that_would_do_are_named(tmp_path, names, patterns):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=patterns):
        imagenet(tmp_path, num_classes=3)
