from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import effnetv2_keras
from effnetv2_keras.architecture import variants
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.models.keras_compat import IS_KERAS_3, tf_variables
from effnetv2_keras.weights import Mismatch, WeightsError, layout, load_weights
from effnetv2_keras.weights.assign import assign, weight_names
from effnetv2_keras.weights.layout import WeightsFile
from effnetv2_keras.weights.tf_checkpoint import checkpoint_prefix
from tests.models.filling import fill_at_random
from tests.tiny import TINY
from tests.weights.filled import assert_same_weights, named_weights, pixels, tiny, write_h5


def file_of(weights, *skipped):
    return WeightsFile("made up", weights, skipped)


@pytest.mark.parametrize("spec", [TINY, variants.MODELS["efficientnetv2-b0"], variants.MODELS["efficientnet-b0"]])
def test_the_layout_is_that_of_the_models(spec):
    model = build_model(spec, include_top=False)
    shapes = {name: tuple(weight.shape) for name, weight in zip(weight_names(model), model.weights)}
    assert layout.body_shapes(spec) == shapes


def test_every_variant_is_recognised_by_its_shapes():
    for name, spec in variants.MODELS.items():
        shapes = {**layout.body_shapes(spec), "classifier/kernel": (1, 2)}
        shapes[layout.STEM_KERNEL] = (3, 3, 5, shapes[layout.STEM_KERNEL][3])
        assert layout.variant_of(shapes) == name
    assert layout.variant_of(layout.body_shapes(TINY)) is None


def test_names_do_not_depend_on_how_a_model_was_made(two_replicas):
    plain = weight_names(tiny())
    assert plain[:2] == ["stem/conv/kernel", "stem/norm/gamma"]
    assert len(set(plain)) == len(plain)
    with tf.name_scope("outer"):
        assert weight_names(tiny(name="stem")) == plain
    assert weight_names(tiny(dtype="mixed_bfloat16")) == plain
    assert weight_names(tf.keras.models.clone_model(tiny())) == plain
    with two_replicas.scope():
        assert weight_names(tiny()) == plain


def test_weights_reach_every_replica(two_replicas):
    saved = tiny(seed=1)
    with two_replicas.scope():
        model = tiny()
    assign(model, file_of(named_weights(saved)), "file")
    assert_same_weights(model, saved)
    for variable, value in zip(tf_variables(model.weights), saved.get_weights()):
        for replica in two_replicas.experimental_local_results(variable):
            np.testing.assert_array_equal(replica, value)


def test_another_model_is_refused():
    with pytest.raises(WeightsError, match="EfficientNetV2S: Model 'sequential.*' has no layer 'stem'"):
        load_weights(tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))]), "imagenet")


def test_everything_that_does_not_fit_is_named_and_nothing_is_loaded():
    model = tiny(seed=1)
    before, weights = named_weights(model), named_weights(tiny(seed=2))
    weights["block_9/expand/norm/beta"] = weights.pop("block_1/expand/norm/beta")
    weights["head/conv/kernel"] = weights["head/conv/kernel"][..., :5]
    with pytest.raises(WeightsError) as caught:
        assign(model, file_of(weights, "optimizer/slot"), "some.file")
    message = str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert "some.file (made up) does not fit the model" in message
    assert "not in the file: block_1/expand/norm/beta" in message
    assert "of another shape: head/conv/kernel (1, 1, 16, 5) in the file, (1, 1, 16, 32) in the model" in message
    assert "in the file but not in the model: block_9/expand/norm/beta" in message
    report = caught.value.report
    assert report.missing == ("block_1/expand/norm/beta",)
    assert report.mismatched == (Mismatch("head/conv/kernel", (1, 1, 16, 5), (1, 1, 16, 32)),)
    assert report.skipped == ("block_9/expand/norm/beta", "optimizer/slot")
    for name, value in named_weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("change", ["block_9/expand/norm/beta", "classifier/extra"])
def test_a_weight_too_many_in_the_body_is_an_error_but_not_one_of_another_top(change):
    weights = {**named_weights(tiny(seed=2)), change: np.zeros(3, np.float32)}
    if change.startswith("block"):
        with pytest.raises(WeightsError, match=f"in the file but not in the model: {change}"):
            assign(tiny(), file_of(weights), "file")
    else:
        assert assign(tiny(), file_of(weights), "file").skipped == (change,)


def test_a_file_of_another_variant_says_which():
    weights = {name: np.zeros(shape) for name, shape in layout.body_shapes(variants.MODELS["efficientnetv2-s"]).items()}
    with pytest.raises(WeightsError, match="so it is not a file of this variant. It contains the weights of "
                       "'efficientnetv2-s'; build that model. The model is unchanged") as caught:  # fmt: skip
        assign(tiny(), file_of(weights), "file")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("num_classes", [3, 5])
def test_only_a_classifier_of_another_width_is_left_as_it_was(num_classes):
    saved, model = tiny(seed=2), tiny(seed=1, num_classes=num_classes)
    initial = named_weights(model)
    report = assign(model, file_of(named_weights(saved)), "file")
    expected = initial if num_classes == 3 else named_weights(saved)
    for name, value in named_weights(model).items():
        source = expected if name.startswith("classifier/") else named_weights(saved)
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    if num_classes == 3:
        assert report.mismatched == (
            Mismatch("classifier/kernel", (32, 5), (32, 3)), Mismatch("classifier/bias", (5,), (3,)),
        )  # fmt: skip
        assert "Left at their initial values: classifier/kernel (32, 5) in the file, (32, 3) in" in report.describe()
    else:
        assert report.describe() == f"Loaded {len(initial)} of {len(initial)} weights from file (made up)."


def test_half_a_classifier_is_not_loaded():
    weights, model = named_weights(tiny(seed=2)), tiny(seed=1)
    initial = named_weights(model)
    weights["classifier/kernel"] = weights["classifier/kernel"][:, :4]
    report = assign(model, file_of(weights), "file")
    assert "classifier/bias" in report.skipped
    np.testing.assert_array_equal(named_weights(model)["classifier/bias"], initial["classifier/bias"])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_stem_for_rgb_is_made_to_fit_other_images(channels):
    spec = dataclasses.replace(TINY, normalization="imagenet")
    settings = {"num_classes": 5, "include_preprocessing": False}
    saved = build_model(spec, **settings)
    fill_at_random(saved)
    model = build_model(spec, input_shape=(None, None, channels), **settings)
    report = assign(model, file_of(named_weights(saved)), "file")
    assert report.adapted == ("stem/conv/kernel",)
    assert "Adapted to the number of image channels: stem/conv/kernel" in report.describe()
    rgb, ours = named_weights(saved)["stem/conv/kernel"], named_weights(model)["stem/conv/kernel"]
    grey = tf.tile(pixels(32, 32, 1) / 255, [1, 1, 1, channels])
    if channels == 1:
        np.testing.assert_allclose(ours[:, :, 0], rgb[:, :, 0] + rgb[:, :, 1] + rgb[:, :, 2], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model(grey), saved(tf.tile(grey, [1, 1, 1, 3])), rtol=1e-4, atol=1e-5)
    else:
        for channel in range(channels):
            np.testing.assert_allclose(ours[:, :, channel], rgb[:, :, channel % 3] * 3 / channels, rtol=1e-5)


def test_a_file_for_other_images_does_not_fit_a_model_for_rgb():
    saved = tiny(seed=1, input_shape=(None, None, 4))
    with pytest.raises(WeightsError, match=r"stem/conv/kernel \(3, 3, 4, 8\) in the file, \(3, 3, 3, 8\) in the model"):
        assign(tiny(), file_of(named_weights(saved)), "file")


def test_blocks_of_kinds_that_alternate(tmp_path):
    """Files that count layers by class do not tell the order; it is the model's."""
    spec = ModelSpec(
        "mixed",
        (BlockSpec("mbconv", 1, 3, 1, 4, 8, 8, 0.25), BlockSpec("fused_mbconv", 1, 3, 1, 4, 8, 8, 0.25),
         BlockSpec("mbconv", 1, 3, 2, 1, 8, 8)),
    )  # fmt: skip
    saved, model = build_model(spec, num_classes=2), build_model(spec, num_classes=2)
    fill_at_random(saved)
    for path in (tmp_path / "mixed.weights.h5", *([] if IS_KERAS_3 else [tmp_path / "mixed"])):
        saved.save_weights(path)
        model.set_weights([np.zeros_like(value) for value in model.get_weights()])
        load_weights(model, path)
        assert_same_weights(model, saved)


@pytest.mark.parametrize("content", [b"", b"plain text, and quite a lot of it", b"\x80\x04."])
def test_an_unknown_format_is_refused(content, tmp_path):
    (tmp_path / "file.bin.txt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"The format of .*file\.bin\.txt is unknown\. .*Supported formats are HDF5"):
        load_weights(tiny(), tmp_path / "file.bin.txt")


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        WeightsError, match="no file, folder or checkpoint .*nothing. The names of published.*imagenet21k"
    ):
        load_weights(tiny(), tmp_path / "nothing")


def test_the_public_names():
    assert effnetv2_keras.load_weights is load_weights
    assert effnetv2_keras.WeightReport.__name__ == "WeightReport"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "It is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404</html>", "a page of a web site"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_named(tmp_path, content, reason):
    (tmp_path / "model.h5").write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        load_weights(tiny(), tmp_path / "model.h5")


def test_weights_that_are_not_finite_are_warned_of(tmp_path):
    model = tiny(0)
    weights = model.get_weights()
    weights[0][...] = np.nan
    model.set_weights(weights)
    write_h5(model, tmp_path / "model.h5")
    report = load_weights(tiny(), tmp_path / "model.h5")
    assert report.warnings == ("NaN or infinite values are in stem/conv/kernel, so outputs will be NaN.",)


def test_the_current_folder_is_a_folder_of_a_checkpoint(tmp_path, monkeypatch):
    tf.train.Checkpoint(model=tiny(0)).write(str(tmp_path / "ckpt"))
    monkeypatch.chdir(tmp_path)
    assert checkpoint_prefix(pathlib.Path(".")) == "ckpt"
