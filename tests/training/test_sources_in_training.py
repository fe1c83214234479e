"""Every kind of source, from files to a trained network: counted once in evaluation, resumed to the last bit."""

import io
import shutil

import numpy as np
import pytest
import rich.console
import tensorflow as tf
import tensorflow_datasets as tfds

from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.evaluate import evaluate, load_run
from tests.data.test_files import write_digits, write_list
from tests.records import digits, fake_metadata, write_imagenet, write_imagenet21k, write_tfds
from tests.short_runs import tiny_config, train_tiny
from tests.tiny import TINY
from tests.training.test_loop import assert_equal_runs, stop_at


def tfrecord(root):
    return {"source": "tfrecord", "data_dir": str(write_imagenet(root)), "num_classes": 3, "shuffle_buffer": 7}


def multi_label_tfrecord(root):
    write_imagenet21k(root, count=30, shards=5)
    return {
        "source": "tfrecord", "data_dir": str(root), "num_classes": 4, "multi_label": True, "first_label": 0,
        "image_key": "image", "label_key": "labels",
        "train_split": "imagenet21k[20%:]", "eval_split": "imagenet21k[:20%]",
    }  # fmt: skip


def lists(root):
    write_list(root, "train.csv", write_digits(root, 24))
    write_list(root, "test.csv", write_digits(root, 13, skip=200))
    return {"source": "csv", "data_dir": str(root)}


def prepared_tfds(root):
    images, labels = digits()
    chosen = np.flatnonzero(labels < 3)[:37]
    examples = [{"image": images[i][..., None], "label": labels[i]} for i in chosen]
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
    write_tfds(root, "three_digits", features, {"train": examples[:24], "test": examples[24:]})
    return {"source": "tfds", "tfds_name": "three_digits", "data_dir": str(root), "shuffle_buffer": 7}


@pytest.mark.parametrize("make", [tfrecord, multi_label_tfrecord, lists, prepared_tfds])
def test_a_source_trains_evaluates_and_goes_on(tmp_path, monkeypatch, two_replicas, make):
    config = tiny_config(
        "progressive.stages=1,train.epochs=2,runtime.checkpoint_every=2", **make(tmp_path)
    )  # 6 steps, two epochs
    with monkeypatch.context() as patch:  # what would be left if the run were killed in its third step
        stop_at(patch, 3, lambda: shutil.copytree(tmp_path / "whole", tmp_path / "parts"))
        whole = train_tiny(config, tmp_path / "whole")
    count = open_splits(config.data).evaluation.num_examples
    assert whole["num_images"] == count
    assert 0 <= whole["top1"] <= whole["top5"] <= 1
    assert tf.train.latest_checkpoint(str(tmp_path / "parts" / "checkpoints")).endswith("ckpt-2")
    train_tiny(config, tmp_path / "parts")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    console = rich.console.Console(file=io.StringIO())
    subject = load_run(str(tmp_path / "whole"), two_replicas, which="latest", spec=TINY)
    figures = evaluate(subject, two_replicas, console=console)
    assert figures["num_images"] == count
    assert figures["top1"] == pytest.approx(whole["top1"], abs=0.01)


def test_random_images_of_a_known_data_set(tmp_path):
    """What TensorFlow Datasets itself offers for tests: its features and sizes, other pixels."""
    fake_metadata(tmp_path, "cifar10", {"train": 24, "test": 24})
    with tfds.testing.mock_data(num_examples=24, data_dir=str(tmp_path)):
        config = tiny_config(
            "progressive.stages=1,train.epochs=1", source="tfds", tfds_name="cifar10", data_dir=str(tmp_path)
        )
        result = train_tiny(config, tmp_path / "run")
    assert result["num_images"] == 24
