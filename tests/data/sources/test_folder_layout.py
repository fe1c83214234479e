"""Which sub-folders are splits and which are classes. The image files are empty: nothing here decodes them."""

import logging
import pathlib
import unicodedata

import pytest

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.split_names import role_of, roles_of
from effnetv2_keras.data.splits import open_splits


def write_tree(root, *folders, count=4):
    """Writes empty image files into folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{folder.replace('/', '_')}_{number}.jpg").touch()


def of_splits(*splits, classes=("cat", "dog")):
    return [f"{split}/{name}" for split in splits for name in classes]


def opened(root, **settings):
    """Returns the classes, and the folders directly in ``root`` of the training and evaluation images."""
    splits = open_splits(DataConfig(data_dir=str(root), **settings))
    places = [
        {pathlib.Path(path).relative_to(root).parts[0] for path, _ in source.extents()}
        for source in (splits.train, splits.evaluation)
    ]
    return splits.train.class_names, *places


@pytest.mark.parametrize(
    ("names", "train", "evaluation"),
    [
        (("train", "valid", "test"), "train", "valid"),
        (("train", "valid"), "train", "valid"),
        (("Train", "Val", "Test"), "Train", "Val"),
        (("TRAINING", "VALIDATION"), "TRAINING", "VALIDATION"),
        (("Training", "Testing"), "Training", "Testing"),
        (("train", "dev", "test"), "train", "dev"),
        (("seg_train", "seg_test"), "seg_train", "seg_test"),
        (("train_images", "eval_images"), "train_images", "eval_images"),
        (("images_train", "images_val", "images_test"), "images_train", "images_val"),
        (("train2017", "val2017"), "train2017", "val2017"),
        (("training_set", "test_set"), "training_set", "test_set"),
        (("trainset", "holdout"), "trainset", "holdout"),
        (("ILSVRC2012_train", "ILSVRC2012_val"), "ILSVRC2012_train", "ILSVRC2012_val"),
        (("train-jpg", "test-jpg"), "train-jpg", "test-jpg"),
        (("cars_train", "cars_test"), "cars_train", "cars_test"),
        (("trainval", "test"), "trainval", "test"),
        (("TrainImages", "ValImages"), "TrainImages", "ValImages"),
    ],
)
def test_usual_names_of_splits_are_understood(tmp_path, caplog, names, train, evaluation):
    write_tree(tmp_path, *of_splits(*names))
    with caplog.at_level(logging.INFO, "absl"):
        assert opened(tmp_path) == (("cat", "dog"), {train}, {evaluation})
    assert f"training on '{train}', evaluating on '{evaluation}'" in caplog.text
    assert ("is chosen on the test split" in caplog.text) == ("test" in evaluation.lower())


def test_a_share_of_train_is_a_share_of_its_other_spelling(tmp_path):
    write_tree(tmp_path, *of_splits("Training", "Val"))
    assert opened(tmp_path, train_split="train[50%:]", eval_split="train[:50%]")[1:] == ({"Training"}, {"Training"})
    assert opened(tmp_path, train_split="train[50%:]")[1:] == ({"Training"}, {"Val"})


@pytest.mark.parametrize("name", ["station", "trains", "tested", "valley", "trainer", "bullet_train", "test_tube"])
def test_other_names_have_no_role(name):
    assert role_of(name) is None


def test_names_that_share_a_role_are_no_splits():
    assert roles_of(["bullet_train", "freight_train"]) == {}


def test_nested_and_unlabeled_splits_of_an_archive(tmp_path, caplog):
    write_tree(tmp_path, *of_splits("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred")
    assert opened(tmp_path) == (("cat", "dog"), {"seg_train"}, {"seg_test"})
    assert "'seg_pred' are no splits and are left out" in caplog.text


def test_a_test_split_without_classes_is_not_evaluated(tmp_path, caplog):
    write_tree(tmp_path, *of_splits("train"), "test1")
    assert opened(tmp_path) == (("cat", "dog"), {"train"}, {"train"})
    assert "test1 has no class folders, so its images have no labels" in caplog.text


@pytest.mark.parametrize(
    "tree",
    [
        ("bus", "car", "train"),
        ("bus", "car", "train/steam", "train/diesel"),
        ("bus", "car", "train", "train/steam"),
        ("bus", "car", "train", "test"),
        ("tram", "train"),
        ("bullet_train/old", "bullet_train/new", "test_tube/glass"),
        ("invalid/2023", "valid/2023"),
        ("invalid", "valid"),
    ],
)
def test_classes_with_names_of_splits_are_classes(tmp_path, tree):
    write_tree(tmp_path, *tree)
    assert opened(tmp_path)[0] == tuple(sorted({name.partition("/")[0] for name in tree}))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([*of_splits("train"), "more"], r"'train' beside 'more'.*data.train_split=train\[10%:\],data.eval_split=train"),
        ([*of_splits("train"), "more", "extra"], "'train' beside 'extra', 'more'"),
        ([*of_splits("train", "val"), "bus", "car"], "'train', 'val' beside .*data.eval_split=val"),
        ([*of_splits("train"), "cat", "dog"], "'train' beside 'cat', 'dog'"),
        ([*of_splits("test"), "cat", "dog"], "'test' beside 'cat', 'dog'"),
        (of_splits("val", "test"), "'test', 'val'.*none of them is called train"),
        (of_splits("train", "Training"), "'Training' and 'train', and each may be the train split.*split=Training"),
        (of_splits("train", "val", "validation"), "each may be the validation split.*data.eval_split=val"),
        (of_splits("train_in_2019", "test_of_bob"), "not quite those of splits.*train_split=train_in_2019"),
        (["train", "test"], "train has no sub-folders"),
        (of_splits("train_small", "train_big", "val"), "called train.*train_split=train_big,data.eval_split=val"),
        (of_splits("entrainement", "test"), "called train.*train_split=entrainement,data.eval_split=test"),
        (of_splits("rps", "rps-test-set", "rps-validation"), "rps'.*train_split=rps,data.eval_split=rps-validation"),
        ([*of_splits("train", "Train"), "meta"], r"train_split=Train\[10%:\],data.eval_split=Train\[:10%\]"),
        ([*of_splits("train", "val", "train_more")], "'train', 'val' beside 'train_more'"),
    ],
)
def test_what_is_not_certain_is_asked(tmp_path, tree, message):
    write_tree(tmp_path, *tree)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_classes_that_look_like_splits_are_pointed_out(tmp_path, caplog):
    write_tree(tmp_path, *of_splits("learn", "check"))
    assert opened(tmp_path)[0] == ("check", "learn")
    assert "'check', 'learn' are taken for classes, but each contains 'cat', 'dog'. If they are splits" in caplog.text
    assert opened(tmp_path, train_split="learn", eval_split="check") == (("cat", "dog"), {"learn"}, {"check"})


def test_the_settings_answer(tmp_path):
    write_tree(tmp_path, *of_splits("train", "Training", "val", "validation", "learn"), "more")
    for train in ("Training", "learn"):
        for evaluation in ("val", "validation", f"{train}[:50%]"):
            answer = {"train_split": f"{train}[50%:]", "eval_split": evaluation}
            assert opened(tmp_path, **answer) == (("cat", "dog"), {train}, {evaluation.partition("[")[0]})
    with pytest.raises(DataError, match="no folder .*/valid, the split that data.eval_split names. There are .*'val'"):
        opened(tmp_path, train_split="learn", eval_split="valid")


def test_an_evaluation_split_chooses_train_itself(tmp_path):
    write_tree(tmp_path, *of_splits("train", "trainval", "val"))
    with pytest.raises(DataError, match=r"split=trainval \(for 'train' itself, set data.eval_split instead\)"):
        opened(tmp_path)
    assert opened(tmp_path, eval_split="val")[1:] == ({"train"}, {"val"})


def test_an_evaluation_split_says_that_train_is_a_split(tmp_path):
    write_tree(tmp_path, *of_splits("train"), "more")
    assert opened(tmp_path, train_split="train[50%:]", eval_split="train[:50%]")[0] == ("cat", "dog")


def test_lists_in_other_spellings(tmp_path):
    write_tree(tmp_path, *of_splits("Training", "Valid"))
    for split in ("Training", "Valid"):
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in (tmp_path / split).rglob("*.jpg")]
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *rows]))
    assert opened(tmp_path, source="csv") == (("cat", "dog"), {"Training"}, {"Valid"})


@pytest.mark.parametrize("source", ["folder", "csv"])
@pytest.mark.parametrize(("role", "shares"), [("training", ("[:10%]", "[10%:]")), ("evaluation", ("[10%:]", "[:10%]"))])
def test_a_share_that_loses_a_class_is_refused(tmp_path, source, role, shares):
    write_tree(tmp_path, "cat", count=40)
    write_tree(tmp_path, "dog", "emu", count=4)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in tmp_path.glob("*/*.jpg")]
    (tmp_path / "train.csv").write_text("\n".join(["path,label", *rows]))
    settings = {"source": source, "train_split": f"train{shares[0]}", "eval_split": f"train{shares[1]}"}
    message = rf"_split=train\[:10%\], no {role} image is left of 'dog' \(4 images\), 'emu' \(4 images\). Use a larger"
    with pytest.raises(DataError, match=message):
        opened(tmp_path, **settings)


def test_a_large_holdout_leaves_an_image_of_each_class(tmp_path):
    write_tree(tmp_path, "cat", "dog", count=3)
    splits = open_splits(DataConfig(data_dir=str(tmp_path), holdout=0.9))
    assert (splits.train.num_examples, splits.evaluation.num_examples) == (2, 4)


def test_a_label_that_is_held_out_everywhere_is_refused(tmp_path):
    write_tree(tmp_path, "all", count=9)
    rows = [f"{path.relative_to(tmp_path)},a;b" for path in sorted((tmp_path / "all").iterdir())]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows[1:], rows[0].replace("a;b", "rare")]))
    with pytest.raises(DataError, match="With data.holdout=0.1, no training image is left of 'rare'"):
        open_splits(DataConfig(source="csv", data_dir=str(tmp_path / "all.csv"), multi_label=True))


def test_an_archive_in_an_archive(tmp_path, caplog):
    write_tree(tmp_path, *of_splits("asl_train/asl_train"), "asl_test/asl_test")
    assert opened(tmp_path) == (("cat", "dog"), {"asl_train"}, {"asl_train"})
    assert "asl_test has no class folders" in caplog.text


@pytest.mark.parametrize("other", ["masks", "old_test", "images to test", "Test-many"])
def test_folders_beside_splits_that_share_their_classes_are_left_out(tmp_path, caplog, other):
    write_tree(tmp_path, *of_splits("Training", "Valid"), other)
    assert opened(tmp_path) == (("cat", "dog"), {"Training"}, {"Valid"})
    assert f"{other!r} are no splits and are left out" in caplog.text


def test_classes_that_are_each_divided_into_splits_are_pointed_out(tmp_path, caplog):
    write_tree(tmp_path, *of_splits("cat", "dog", classes=("train", "val")))
    assert opened(tmp_path)[0] == ("cat", "dog")
    assert "each class is divided into 'train', 'val', but all its images are used together" in caplog.text
    assert "such as train/cat" in caplog.text


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            of_splits("a/train", "a/test", "b/b/train", "b/b/test"),
            "a seems to be a data set .*'test', 'train'. Set --data",
        ),
        (of_splits("cars/cars/Training", "cars/cars/Testing"), "Set --data_dir=.*/cars/cars, or"),
        (["cat", "dog", "pets/cat", "pets/dog"], "pets has images of 'cat', 'dog', but .* unpacked twice"),
        (
            of_splits("archive/photos"),
            "in the folder 'archive' only.*If 'cat', 'dog' are .*--data_dir=.*/archive/photos$",
        ),
        (
            of_splits("train/all", "val/all"),
            "in the folder 'all' only.*are the classes, move these folders to .*/train$",
        ),
        ([*of_splits("images"), "labels"], "'images' only, and no images of 'labels'.*--data_dir=.*/images$"),
    ],
)
def test_classes_further_down_are_pointed_out(tmp_path, tree, message):
    write_tree(tmp_path, *tree)
    for file in (tmp_path / "labels").glob("*"):
        file.rename(file.with_suffix(".xml"))
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_accents_may_be_stored_in_other_characters(tmp_path):
    composed, separate = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_tree(tmp_path, *of_splits("train", classes=(composed, "dog")), *of_splits("val", classes=(separate, "dog")))
    splits = open_splits(DataConfig(data_dir=str(tmp_path)))
    assert splits.evaluation.class_names == splits.train.class_names == (composed, "dog")
    assert sorted(splits.evaluation.labels_of.values()) == [(0,)] * 4 + [(1,)] * 4
