"""Every kind of source, from files to a trained network: counted once in evaluation, resumed to the last bit."""

import io
import shutil

import numpy as np
import pytest
import rich.console
import tensorflow as tf
import tensorflow_datasets as tfds

from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.modes.evaluate import evaluate, load_run
from effnetv2_keras.runs.run_folder import RunFolder
from tests.data.sources.test_lists import write_digits, write_list
from tests.records import (
    digits,
    example,
    fake_metadata,
    pictures,
    write_imagenet,
    write_imagenet21k,
    write_shards,
    write_tfds,
)
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.training.test_loop import assert_equal_runs, stop_at

pytestmark = pytest.mark.usefixtures("graphs_as_traced")


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


@pytest.mark.parametrize(
    "make",
    [
        tfrecord,
        *(pytest.param(make, marks=pytest.mark.slow) for make in (multi_label_tfrecord, lists, prepared_tfds)),
    ],
)
def test_a_source_trains_evaluates_and_goes_on(tmp_path, monkeypatch, two_replicas, make):
    config = tiny_config(
        f"{ONE_STAGE},train.epochs=2,runtime.checkpoint_every=2", **make(tmp_path)
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
    subject = load_run(str(tmp_path / "whole"), two_replicas, which="latest")
    figures = evaluate(subject, two_replicas, console=console)
    assert figures["num_images"] == count
    assert figures["top1"] == pytest.approx(whole["top1"], abs=0.01)


def test_random_images_of_a_known_data_set(tmp_path):
    """What TensorFlow Datasets itself offers for tests: its features and sizes, other pixels."""
    fake_metadata(tmp_path, "cifar10", {"train": 24, "test": 24})
    with tfds.testing.mock_data(num_examples=24, data_dir=str(tmp_path)):
        config = tiny_config(f"{ONE_STAGE},train.epochs=1", source="tfds", tfds_name="cifar10", data_dir=str(tmp_path))
        result = train_tiny(config, tmp_path / "run")
    assert result["num_images"] == 24


def long_shard(root, *, wrong, several=False, split="train"):
    """Shards of which one holds 320 images, the 300th with a wrong label: data settings, and that shard's path."""
    ((image, _),) = pictures(1)
    paths = {}
    for name in ("train", "validation"):
        labels = [[1 + number % 2] for number in range(320 if name == split else 8)]
        if name == split:
            labels[299] = [5, wrong] if several else [wrong]
        records = [example(image__encoded=image, image__class__label=row) for row in labels]
        (paths[name],) = write_shards(root, name, records, 1)
    data = {"source": "tfrecord", "data_dir": str(root), "num_classes": 1000, "shuffle_buffer": 7}
    return {**data, "multi_label": several}, paths[split]


@pytest.mark.parametrize("several", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("wrong", [0, pytest.param(1001, marks=pytest.mark.slow)])
def test_a_wrong_label_far_into_a_shard_ends_the_run_with_a_message(tmp_path, wrong, several):
    data, path = long_shard(tmp_path / "data", wrong=wrong, several=several)
    config = tiny_config(f"{ONE_STAGE},train.epochs=1", **data)  # 40 steps
    message = (
        f"Record 299 of {path} has the label {wrong}, but with 1000 classes and data.first_label=1 labels are 1 to "
        r"1000. Set data.first_label \(0 or 1\) and data.num_classes, name all classes if there is a labels.txt, or "
        "repair the records."
    )
    with pytest.raises(DataError, match=f"^{message}\\nSaved .*$"):
        train_tiny(config, tmp_path / "run")
    assert RunFolder(tmp_path / "run").metrics()[-1]["step"] > 4  # it trained on what came before


def test_a_wrong_label_in_evaluation_ends_the_run_with_a_message(tmp_path):
    data, path = long_shard(tmp_path / "data", wrong=0, split="validation")
    message = f"Record 299 of {path} has the label 0, but with 1000 classes"
    config = tiny_config(f"{ONE_STAGE},train.epochs=2,runtime.checkpoint_every=1", **data)  # two steps
    with pytest.raises(DataError, match=message):
        train_tiny(config, tmp_path / "run")
    subject = load_run(str(tmp_path / "run"), make_strategy("cpu"), which="latest")
    with pytest.raises(DataError, match=message):
        evaluate(subject, make_strategy("cpu"), console=rich.console.Console(file=io.StringIO()))


def test_tfds_images_without_a_label_are_refused(tmp_path):
    """TensorFlow Datasets numbers the unknown labels of some test splits -1."""
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
    images, _ = digits()
    examples = [{"image": images[i][..., None], "label": i % 3} for i in range(24)]
    unknown = [{"image": images[0][..., None], "label": -1}]
    write_tfds(tmp_path, "secret", features, {"train": examples, "test": unknown})
    config = tiny_config(f"{ONE_STAGE},train.epochs=1", source="tfds", tfds_name="secret", data_dir=str(tmp_path))
    with pytest.raises(
        DataError, match="^Secret test, record 0 has the label -1, but the labels of 3 classes are 0 to 2"
    ):
        train_tiny(config, tmp_path / "run")
