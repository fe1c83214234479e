import importlib.util

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import hparams
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError, Shard
from effnetv2_keras.data.splits import find_splits, open_splits
from tests.records import digits, fake_metadata, labels_of_multi, write_tfds

FEATURES = {
    "picture": tfds.features.Image(shape=(28, 28, 1)),
    "kind": tfds.features.ClassLabel(num_classes=3),
    "tags": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=4)),
    "size": tfds.features.Scalar(tf.int64),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set of digits with unusual names of features, and with several labels."""
    images, labels = digits()
    chosen = np.flatnonzero(labels < 3)[:30]
    examples = [
        {"picture": images[i][..., None], "kind": labels[i], "tags": labels_of_multi(labels[i]), "size": 28}
        for i in chosen
    ]
    root = tmp_path_factory.mktemp("tfds")
    write_tfds(root, "digit_kinds", FEATURES, {"train": examples[:20], "test": examples[20:]})
    return root


def kinds(root, **settings):
    names = {"image_key": "picture", "label_key": "kind"}
    return open_splits(DataConfig(source="tfds", tfds_name="digit_kinds", data_dir=str(root), **{**names, **settings}))


def test_features_have_any_names(root):
    splits = kinds(root)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (20, 10)
    assert not splits.train.multi_label
    images, labels = digits()
    chosen = np.flatnonzero(labels < 3)[20:30]
    found = [(tf.io.decode_image(r["image"]).numpy().tobytes(), int(r["label"])) for r in
             splits.evaluation.ordered(Shard())]  # fmt: skip
    assert sorted(found) == sorted((images[index].tobytes(), labels[index]) for index in chosen)


def test_float_images_are_refused(tmp_path):
    features = {"image": tfds.features.Image(shape=(4, 4, 1), dtype=tf.float32),
                "label": tfds.features.ClassLabel(num_classes=2)}  # fmt: skip
    examples = [{"image": np.full((4, 4, 1), 0.5, np.float32), "label": label} for label in (0, 1)]
    write_tfds(tmp_path, "float_images", features, {"train": examples, "test": examples})
    with pytest.raises(DataError, match="The images 'image' of float_images are floats, whose range is not known"):
        open_splits(DataConfig(source="tfds", tfds_name="float_images", data_dir=str(tmp_path)))


def test_other_spellings_of_splits(tmp_path):
    images, labels = digits()
    examples = [
        {"picture": images[i][..., None], "kind": labels[i], "tags": [], "size": 28}
        for i in np.repeat(np.flatnonzero(labels == 1)[:2], [6, 4])
    ]
    write_tfds(tmp_path, "digit_kinds", FEATURES, {"Training": examples[:6], "dev": examples[6:]})
    assert [
        (splits.train.num_examples, splits.evaluation.num_examples)
        for splits in (kinds(tmp_path), kinds(tmp_path, train_split="train[:50%]"))
    ] == [(6, 4), (3, 4)]


def test_a_sequence_of_labels_makes_a_multi_label_source(root):
    splits = kinds(root, label_key="tags")
    assert splits.evaluation.multi_label
    _, labels = digits()
    chosen = np.flatnonzero(labels < 3)[20:30]
    found = [record["label"].numpy().tolist() for record in splits.evaluation.ordered(Shard())]
    assert sorted(found) == sorted(labels_of_multi(labels[index]) for index in chosen)


def test_slices_share_no_image(root):
    splits = kinds(root, train_split="train[:70%]", eval_split="train[70%:]")
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (14, 6)
    images = [{r["image"].numpy() for r in source.ordered(Shard())} for source in (splits.train, splits.evaluation)]
    assert len(images[0] | images[1]) == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_split": "train[:70%]", "eval_split": "train[30%:]"}, "8 of 14 evaluation images are also training"),
        (
            {"train_split": "train+test"},
            "10 of 10 evaluation images are also training images, for example in .*test.tfrecord",
        ),
        ({"image_key": None}, "has no feature 'image'. Its features are .*Choose one that is an .*image_key=picture$"),
        ({"label_key": "lable"}, "has no feature 'lable'. Its features are .*is a ClassLabel: .*_key=kind or tags$"),
        ({"label_key": "size"}, "The feature 'size' of digit_kinds is .*, but must be a ClassLabel. .*=kind or tags$"),
        ({"image_key": "tags"}, "The feature 'tags' of digit_kinds is .*, but must be an Image. .*image_key=picture$"),
        ({"eval_split": "tset"}, "digit_kinds has no split 'tset'. Use one of train, test, or a share of one such as"),
        ({"eval_split": "test[:2%]"}, "The split 'test.:2%.' of digit_kinds has no images. Choose a larger share"),
        (
            {"train_split": "train[5%:]", "eval_split": "train[:5%]"},
            r"With data.eval_split=train\[:5%\], no evaluation image is left of '\d' \(\d for training\), '",
        ),
        ({"num_classes": 10}, "data.num_classes is 10, but the data has 3 classes"),
    ],
)
def test_bad_settings_say_what_to_do(root, settings, message):
    with pytest.raises(DataError, match=message):
        kinds(root, **settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "huggingface:mnist",
            "cannot be opened: it needs the package '(datasets|huggingface_hub)', which is not installed. .*pip",
        ),
        ("mnist/nope", "tfds_name=mnist/nope cannot be opened: ValueError: .*nope not found.* Write NAME, NAME/CONFIG"),
        ("mnist:9.9.9", "mnist:9.9.9 cannot be opened: AssertionError: .*cannot be loaded at version 9.9.9"),
        ("a:b:c", "cannot be opened: ValueError: Parsing builder name string a:b:c failed"),
        ("nope", "TensorFlow Datasets has no data set 'nope'"),
    ],
)
def test_names_that_cannot_be_opened_say_why(tmp_path, name, message):
    if name.startswith("huggingface") and any(map(importlib.util.find_spec, ("datasets", "huggingface_hub"))):
        pytest.skip("the packages of Hugging Face are installed")
    with pytest.raises(DataError, match=message):
        find_splits(DataConfig(source="tfds", tfds_name=name, data_dir=str(tmp_path)))


def test_a_package_that_preparing_lacks_is_named(tmp_path, monkeypatch):
    def prepare(_):
        import no_such_package.inner  # noqa: F401

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    with pytest.raises(DataError, match="prepare 'cifar10' in .*: it needs the package 'no_such_package'"):
        open_splits(DataConfig(source="tfds", tfds_name="cifar10", data_dir=str(tmp_path)))


def test_imagenet_names_its_archives_and_their_folder(tmp_path):
    data = DataConfig(source="tfds", tfds_name="imagenet2012", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"ILSVRC2012_img_train.tar \(138 GB\) .* {tmp_path}/downloads/manual."):
        open_splits(data)


def test_cars_say_how_to_do_without_their_dead_download(tmp_path):
    cars = hparams.load("carsFt", "efficientnetv2-b0").data
    layout = r"DIR/train/CLASS/\*.jpg \(8,144 images\) and DIR/test/CLASS/\*.jpg .* --data_dir=DIR"
    with pytest.raises(DataError, match=layout):
        open_splits(cars)
    with pytest.raises(
        DataError, match=r"cars_train.tgz, cars_test.tgz, car_devkit.tgz .*no longer available at .*" + layout
    ):
        open_splits(cars.model_copy(update={"source": "tfds", "data_dir": str(tmp_path)}))


def test_a_failed_download_names_archives_and_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", refuse)
    data = DataConfig(source="tfds", tfds_name="cifar10", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=rf"no network\nIt is made from cifar-10-binary.tar.gz.*{tmp_path}/cifar10/3"):
        open_splits(data)


def refuse(*_):
    raise ConnectionError("no network")


SIZES = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "tf_flowers": {"train": 3_670},
    "cars196": {"train": 8_144, "test": 8_041},
    "imagenet2012": {"train": 1_281_167, "validation": 50_000},
}


@pytest.mark.parametrize(
    ("recipe", "num_train", "num_eval"),
    [
        ("cifar10", 50_000, 10_000),
        ("cifar100Ft", 50_000, 10_000),
        ("flowersFt", 2_040, 6_149),
        ("tfflowersFt", 2_569, 1_101),
        ("carsFt", 8_144, 8_041),
        ("imagenetFt", 1_281_167, 50_000),
        ("imagenet", 1_281_167, 50_000),
    ],
)
def test_recipes_know_sizes_without_the_data(tmp_path, recipe, num_train, num_eval):
    """What TensorFlow Datasets knows of a data set is enough; its images need not be there."""
    data = hparams.load(recipe, "efficientnetv2-b0").data
    data = data.model_copy(update={"source": "tfds", "data_dir": str(tmp_path)})
    fake_metadata(tmp_path, data.tfds_name, SIZES[data.tfds_name])
    splits = find_splits(data)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (num_train, num_eval)


def test_imagenet_minival_holds_out(tmp_path):
    fake_metadata(tmp_path, "imagenet2012", SIZES["imagenet2012"])
    data = hparams.load("imagenet", "efficientnetv2-s").data.model_copy(
        update={"source": "tfds", "data_dir": str(tmp_path), "train_split": "train[2%:]", "eval_split": "train[:2%]"}
    )
    splits = find_splits(data)
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (1_255_544, 25_623)
