"""Files that are damaged, replaced or gone while they are read: an error that names them, and what to do."""

import pathlib

import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.pipeline import InputPlan, eval_input, single_replica, train_input
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.progressive import Stage
from tests.images import write_classes
from tests.records import example, pictures, write_imagenet, write_shards
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.training.test_sources_in_training import prepared_tfds


def read_all(source, policy="skip", *, evaluate=False, on_batch=None, steps=6):
    """Draws batches; ``on_batch`` is called after each."""
    plan = InputPlan(DataConfig(), 4, None, UnreadableImages(policy))
    stage = Stage(0, 0, steps, 16, 0.0, 0.0, 0.0, 0.0)
    input_fn = (
        eval_input(source, plan, image_size=16)
        if evaluate
        else train_input(source, plan, stage=stage, seed=0, first_step=0)
    )
    with plan.unreadable.explained(source):
        for _ in single_replica(input_fn):
            if on_batch:
                on_batch()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def leave_out_the_last(path):
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records[:-1]:
            writer.write(record)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "{path} is damaged at record 5: corrupted record at .*Copy or write it again, then run the same"),
        (cut, "{path} is damaged at record 5: truncated record at .*data.unreadable=skip applies to images and does"),
        (pathlib.Path.unlink, "The file {path} is no longer there. Copy or write it again"),
        (leave_out_the_last, "{path} has 5 records, but had 6 when the run started. Copy or write it again"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message, evaluate):
    splits = open_splits(DataConfig(source="tfrecord", data_dir=str(write_imagenet(tmp_path)), num_classes=3))
    source = splits.evaluation if evaluate else splits.train
    path = pathlib.Path(source.extents()[-1][0])  # the last record is number 5 in both
    damage(path)
    with pytest.raises(DataError, match=f"^{message.format(path=path)}"):
        read_all(source, evaluate=evaluate, steps=12)


def test_a_damaged_file_of_a_tfds_set_is_named(tmp_path):
    source = open_splits(DataConfig(**prepared_tfds(tmp_path))).train
    path = pathlib.Path(source.extents()[0][0])
    cut(path)
    with pytest.raises(DataError, match=f"^{path} is damaged at record 23: truncated record at"):
        read_all(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"image__encoded": None},
            "has no feature 'image/encoded', but must have it as bytes_list",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"image__class__label": None},
            "has no feature 'image/class/label', but must have it as int64_list",
            marks=pytest.mark.slow,
        ),
        (
            {"image__class__label": b"1"},
            "has the feature 'image/class/label' as bytes_list, but must have it as int64_list",
        ),
        ({"image__class__label": [1, 2]}, "has 2 labels, but must have one"),
    ],
)
def test_a_record_that_is_unlike_the_first_ones_is_named(tmp_path, changes, message):
    image, _ = pictures(1)[0]
    features = {"image__encoded": image, "image__class__label": 1}
    other = {name: value for name, value in {**features, **changes}.items() if value is not None}
    (path,) = write_shards(tmp_path, "train", [*[example(**features)] * 30, example(**other)], 1)
    write_shards(tmp_path, "validation", [example(**features)] * 8, 1)
    data = {"source": "tfrecord", "data_dir": str(tmp_path), "num_classes": 3, "shuffle_buffer": 2}
    with pytest.raises(DataError, match=f"^Record 30 of {path} {message}"):
        train_tiny(tiny_config(f"{ONE_STAGE},train.epochs=2", **data), tmp_path / "run")


def folder(root, per_class):
    paths = write_classes(root / "train", {"red": per_class, "blue": per_class}, suffixes=(".jpg",))
    write_classes(root / "val", {"red": 1, "blue": 1})
    return open_splits(DataConfig(data_dir=str(root))).train, paths


def test_images_cut_short_in_the_middle_of_an_epoch_are_named(tmp_path):
    source, paths = folder(tmp_path, 200)
    drawn = []

    def damage():
        drawn.append(1)
        if len(drawn) == 2:
            for path in paths:
                path.write_bytes(path.read_bytes()[:300])

    with pytest.raises(DataError, match=f"^Cannot decode {tmp_path}/train/.*.jpg: it is not a complete JPEG"):
        read_all(source, "error", on_batch=damage, steps=10**4)
    assert len(drawn) >= 2


def test_an_image_that_is_gone_is_named(tmp_path):
    source, paths = folder(tmp_path, 4)
    paths[5].unlink()
    with pytest.raises(DataError, match=f"^The image {paths[5]} can no longer be opened. Put it back"):
        read_all(source)


def test_what_is_not_of_the_input_stays_as_it_is(tmp_path):
    source, _ = folder(tmp_path, 4)
    unreadable = UnreadableImages("error")
    with pytest.raises(tf.errors.ResourceExhaustedError), unreadable.explained(source):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes"), unreadable.explained(source):
        raise tf.errors.InvalidArgumentError(None, None, "shapes do not match")  # and all files are sound
