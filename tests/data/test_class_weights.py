"""The weights of the classes in the loss: from counts and files, in batches, and what is said about unequal classes."""

import json

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.class_weights import describe_classes, find_class_weights, plan_classes, read_class_weights
from effnetv2_keras.data.pipeline import InputPlan, train_input
from effnetv2_keras.data.sources.base import ArraySource, DataError
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.progressive import Stage
from tests.data.test_sharding import Numbers

NAMES = ("cat", "dog", "owl")
COUNTS = np.array([12, 6, 2])


def source_of(counts=COUNTS, names=NAMES):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.random.default_rng(2).integers(0, 256, [len(labels), 8, 8, 3]).astype(np.uint8)
    return ArraySource(images, labels, names)


def config_of(weights=None, **changes):
    return Config().override({"train.class_weights": weights, **changes})


def test_balanced_weights_are_those_of_scikit_learn():
    found = find_class_weights(config_of("balanced"), source_of())
    np.testing.assert_allclose(found, 20 / (3 * COUNTS))
    assert np.dot(found, COUNTS) == pytest.approx(20)  # the mean over the images is 1
    assert find_class_weights(config_of(), source_of()) == ()
    assert find_class_weights(config_of(""), source_of()) == ()


def test_a_class_without_images_does_not_change_the_other_weights():
    names = (*NAMES, "yak")
    found = find_class_weights(config_of("balanced"), source_of([12, 6, 2, 0], names))
    np.testing.assert_allclose(found[:3], 20 / (3 * COUNTS))
    assert np.isfinite(found[3])


def test_records_are_counted():
    found = find_class_weights(config_of("balanced"), Numbers(10))
    np.testing.assert_allclose(found, 10 / (3 * np.array([4, 3, 3])))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("weights.json", json.dumps({"owl": 4, "cat": 1, "dog": 2.5})),
        ("weights.csv", "class,weight\ncat,1\nowl,4\ndog,2.5\n"),
        ("weights.csv", "cat,1\nowl,4\ndog,2.5\n"),
        ("weights.txt", "Weight;Class;note\n1;cat;\n4;owl;rare\n2.5;dog;\n"),
    ],
)
def test_the_weights_of_a_file_keep_their_ratios_and_get_the_mean_1(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert read_class_weights(str(path), NAMES) == (1, 2.5, 4)
    plain = np.array(find_class_weights(config_of(str(path)), source_of()))
    np.testing.assert_allclose(plain / plain[0], [1, 2.5, 4])
    assert np.dot(plain, COUNTS) == pytest.approx(20)
    sampled = np.array(find_class_weights(config_of(str(path), **{"data.balanced_sampling": 1}), source_of()))
    np.testing.assert_allclose(sampled, np.array([1, 2.5, 4]) / 2.5)  # classes are drawn equally often


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.json", '{"cat": 1, "dog": 2}', r"lacks a weight of the classes: owl\. Give every class a positive number"),
        ("w.json", '{"cat": 1, "dog": 2, "owl": 3, "ow1": 1}', r"not have: ow1\. The classes of the data are cat, dog"),
        ("w.json", '{"cat": 1, "dog": 0, "owl": -3}', r"not positive numbers: dog \(0\), owl \(-3\)"),
        ("w.json", '{"cat": 1, "dog": true, "owl": "3"}', r"not positive numbers: dog \(True\), owl \('3'\)"),
        ("w.json", '{"cat": 1, "dog": NaN, "owl": Infinity}', r"dog \(nan\), owl \(inf\)"),
        ("w.json", "[1, 2, 3]", r"w.json cannot be read: it is a list, not an object\. Give every class"),
        ("w.csv", "class,weight\ncat,1\ndog,much\nowl,3\n", r"not positive numbers: dog \('much'\)"),
        ("w.csv", "class,weight\ncat,1\ncat,1\nowl,3\n", r"names the class 'cat' twice"),
        ("w.csv", "name,factor\ncat,1\n", r"has the columns 'name', 'factor'\. Give every class"),
        ("w.csv", "", r"has the columns of an empty file"),
        ("absent.csv", None, r"class_weights=.*absent.csv is neither 'balanced' nor a file\. Correct the path, or use"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        find_class_weights(config_of(str(path)), source_of())


def test_several_labels_and_two_corrections_are_refused():
    several = ArraySource(np.zeros([2, 1, 1, 3], np.uint8), np.eye(2, dtype=bool), ("a", "b"))
    with pytest.raises(DataError, match=r"class_weights=balanced cannot be used where images have several labels.*foc"):
        find_class_weights(config_of("balanced"), several)
    with pytest.raises(ConfigError, match=r"class_weights=balanced and data.balanced_sampling=0.5 would correct .*twi"):
        config_of("balanced", **{"data.balanced_sampling": 0.5})


def batches(*, first_step=0, alphas=(0.0, 0.0), replicas=1, **data):
    config = config_of(**{f"data.{name}": value for name, value in {"augment": "none", **data}.items()})
    plan = InputPlan(config.data, 4, None, UnreadableImages("error"), class_weights=(0.5, 1.25, 4.0))
    stage = Stage(0, 0, 12, 8, 0, *alphas, 0)
    input_fn = train_input(source_of(), plan, stage=stage, seed=3, first_step=first_step)
    return list(input_fn(tf.distribute.InputContext(1, 0, replicas)).as_numpy_iterator())


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (0.8, 0.8)], ids=["plain", "mixed"])
def test_an_image_has_the_weight_of_its_class_and_a_mixed_one_the_mix_of_both(alphas):
    found = batches(alphas=alphas)
    for batch in found:
        np.testing.assert_allclose(batch["weight"], batch["label"] @ np.array([0.5, 1.25, 4.0]), rtol=1e-5)
    values = set(np.round(np.concatenate([batch["weight"] for batch in found]), 4))
    assert values == {0.5, 1.25, 4.0} if not alphas[0] else values - {0.5, 1.25, 4.0}


def test_batches_of_balanced_classes_are_the_same_from_any_step_and_on_two_replicas():
    settings = {"alphas": (0.3, 0.3), "balanced_sampling": 1}
    whole = batches(**settings)
    assert len(whole) == 12
    drawn = np.sum([batch["label"].sum(0) for batch in whole], 0)
    assert np.abs(drawn - 16).max() < 6  # of 48 images, where 29, 14 and 5 would be drawn otherwise
    resumed = batches(first_step=5, replicas=2, **settings)
    assert len(resumed) == 14
    for step, expected in enumerate(whole[5:]):
        for name, value in expected.items():
            halves = [half[name] for half in resumed[2 * step :][:2]]
            np.testing.assert_array_equal(np.concatenate(halves), value)


def test_unequal_classes_are_named_with_what_helps():
    source = source_of([100, 30, 3])
    first = "Unequal classes: 100 training images of cat, but 3 of owl."
    assert describe_classes(config_of(), source) == (
        f"{first} See train.class_weights=balanced and data.balanced_sampling=true."
    )
    assert plan_classes(config_of("balanced"), source) == (
        f"{first}\nWeights in the loss (balanced): 0.443 (cat) to 14.8 (owl)."
    )
    assert plan_classes(config_of(**{"data.balanced_sampling": True}), source) == (
        f"{first}\nImages drawn of a class in an epoch: 44 each."
    )
    assert describe_classes(config_of(), source_of([9, 5, 3])) == ""
    assert describe_classes(config_of(), Numbers(4)) == ""  # not worth reading all records
    assert plan_classes(config_of("balanced"), Numbers(4)) == ""
    with pytest.raises(DataError, match="absent.csv is neither"):  # the file is checked all the same
        plan_classes(config_of("absent.csv"), Numbers(4))
    several = ArraySource(np.zeros([9, 1, 1, 3], np.uint8), np.array([[1, i == 0] for i in range(9)], bool), ("a", "b"))
    assert describe_classes(config_of(), several).endswith("but 1 of b. See train.loss_type=sigmoid_focal.")
    with pytest.raises(DataError, match="read in any order"):
        plan_classes(config_of(**{"data.balanced_sampling": True}), Numbers(4))
