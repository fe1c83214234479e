"""Test-time augmentation: the views of an image, and the mean of their probabilities."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.cropping import CROPPINGS, evaluated_share
from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.views import Views
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.modes.evaluate import Subject, evaluate
from effnetv2_keras.optim import losses

DATA = Config().data
SIDE = 40


def left_and_right(images, *, training):
    """Logits of two classes: how bright the left half is, and the right half."""
    assert not training
    half = images.shape[2] // 2
    parts = (images[:, :, :half], images[:, :, half:])
    return tf.stack([tf.reduce_mean(tf.cast(part, tf.float32), [1, 2, 3]) / 16 for part in parts], -1)


def test_a_flip_adds_the_mirror_image_and_none_changes_nothing():
    images = tf.random.stateless_uniform([2, SIDE, SIDE, 3], [0, 1])
    usual, mirrored = Views.of("flip", DATA, SIDE).of_batch(images)
    np.testing.assert_array_equal(usual, images)
    np.testing.assert_array_equal(mirrored, images[:, :, ::-1])
    none = Views.of("none", DATA, SIDE)
    assert (none.loaded_size, none.data) == (SIDE, DATA)
    assert none.averaged(left_and_right, "softmax") is left_and_right


@pytest.mark.parametrize("crop", [None, 0.625])
def test_crops_are_the_center_and_the_corners_of_the_square_from_which_evaluation_cuts(crop):
    data = DATA.model_copy(update={"eval_crop": crop})
    side = 35  # 7 / 8 of 40
    views = Views.of("flip+crops", data, side)
    assert views.loaded_size == (40 if crop is None else 56)
    whole = views.loaded_size
    image = tf.random.stateless_uniform([whole, whole, 3], [0, 1], 0, 256, tf.int32)
    evaluated = CROPPINGS["clean"].evaluate
    loaded = evaluated(tf.cast(image, tf.uint8), image_size=whole, crop=views.data.eval_crop)
    np.testing.assert_array_equal(loaded, image)
    crops = views.of_batch(loaded[None])
    assert [crop.shape for crop in crops] == [(1, side, side, 3)] * 10
    np.testing.assert_array_equal(crops[0][0], evaluated(loaded, image_size=side, crop=crop))
    corners = (image[:side, :side], image[:side, -side:], image[-side:, :side], image[-side:, -side:])
    for seen, corner in zip(crops[1:5], corners):
        np.testing.assert_array_equal(seen[0], corner)
    for seen, mirrored in zip(crops[:5], crops[5:]):
        np.testing.assert_array_equal(seen[:, :, ::-1], mirrored)


@pytest.mark.parametrize(
    ("pipeline", "size", "share"),
    [
        ("clean", 256, 256 / 288),
        ("clean", 112, 224 / 256),
        ("original_v1", 224, 224 / 256),
        ("original_v2", 288, 288 / 320),
        ("original_v2", 320, 1),
        ("original_finetune", 224, 1),
    ],
)
def test_crops_of_whole_images_are_refused(pipeline, size, share):
    data = DATA.model_copy(update={"pipeline": pipeline})
    assert evaluated_share(data, size) == share
    if share < 1:
        assert Views.of("flip+crops", data, size).loaded_size == round(size / share)
        return
    with pytest.raises(ConfigError, match=f"at {size} px evaluation shows the whole image. Use eval.tta=flip, or set"):
        Views.of("flip+crops", data, size)
    assert Views.of("flip+crops", data.model_copy(update={"eval_crop": 0.5}), size).loaded_size == 2 * size


@pytest.mark.parametrize("loss_type", ["softmax", "sigmoid"])
def test_probabilities_are_averaged_not_logits(loss_type):
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 5)) * 8, tf.float32)
    mean = tf.reduce_mean(losses.probabilities(loss_type, logits), 0)
    averaged = losses.mean_logits(loss_type, logits)
    np.testing.assert_allclose(losses.probabilities(loss_type, averaged), mean, rtol=1e-5, atol=1e-7)
    far = losses.mean_logits(loss_type, tf.constant([[[200.0, -200.0]], [[150.0, -150.0]]]))
    assert np.isfinite(far).all()
    assert far[0, 0] > far[0, 1]


@pytest.mark.parametrize(
    ("tta", "loss", "num_views"), [("none", 0.0, 1), ("flip", np.log(2), 2), ("flip+crops", np.log(2), 10)]
)
def test_an_evaluation_averages_the_views_of_each_image(tta, loss, num_views, tmp_path):
    """Each image is bright on its left; with its mirror image, left and right are equally likely."""
    pixels = np.zeros([5, 80, 80, 3], np.uint8)
    pixels[:, :, :40] = 160
    source = ArraySource(pixels, np.zeros(5, int), ("left", "right"))
    seen = []

    def network(images, *, training):
        seen.append(images.shape[1:3])
        return left_and_right(images, training=training)

    config = Config().override({"eval.tta": tta, "eval.batch_size": 4})
    subject = Subject("views", {"": network}, config, None, SIDE)
    strategy, console = tf.distribute.get_strategy(), rich.console.Console(file=io.StringIO())
    result = evaluate(subject, strategy, splits=Splits(source, source), folder=tmp_path, console=console)
    assert result["num_images"] == 5
    assert seen == [(SIDE, SIDE)] * num_views
    assert result["eval_loss"] == pytest.approx(loss, abs=0.01)
