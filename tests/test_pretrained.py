"""Networks with pretrained weights: the functions of ``tf.keras.applications`` together with the weight readers."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

import effnetv2_keras
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of
from effnetv2_keras.weights import WeightsError, download, registry
from effnetv2_keras.weights.registry import PUBLISHED, Published
from tests.shallow import one_block_a_stage
from tests.weights.filled import assert_close, assert_same_weights, pixels, write_h5
from tests.weights.test_hdf5 import keras_model


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """Files of whole networks are tested where they are read."""
    with one_block_a_stage():
        yield


@pytest.fixture(scope="module", params=["EfficientNetV2B0", "EfficientNetB0"])
def application(request, tmp_path_factory):
    """A network of Keras with random weights: its name, the network, and the file with its weights."""
    variant = {"EfficientNetV2B0": "efficientnetv2-b0", "EfficientNetB0": "efficientnet-b0"}[request.param]
    theirs = keras_model(variant, input_shape=(96, 96, 3))
    path = tmp_path_factory.mktemp("keras") / f"{variant}.h5"
    write_h5(theirs, path)
    return request.param, theirs, path


def test_a_file_of_keras_gives_the_probabilities_of_keras(application):
    name, theirs, path = application
    for weights in (path, str(path)):
        ours = getattr(effnetv2_keras, name)(weights=weights, input_shape=(96, 96, 3))
        assert_close(ours(pixels(96, 96)), theirs(pixels(96, 96)))


def tuned(side, name, path):
    """Feature extraction as in Keras' guides: a frozen network and a new classifier."""
    base = getattr(side, name)(include_top=False, weights=path, input_shape=(96, 96, 3), pooling="avg")
    base.trainable = False
    image = tf.keras.Input((96, 96, 3))
    scores = tf.keras.layers.Dense(3, kernel_initializer=tf.keras.initializers.RandomNormal(seed=0))
    model = tf.keras.Model(image, scores(base(image, training=False)))
    model.compile("sgd", "mse")
    model.fit(pixels(96, 96), np.ones([2, 3]), epochs=2, verbose=0)
    assert len(model.trainable_variables) == 2
    return model.predict(pixels(96, 96), verbose=0)


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 drops at random in fit, in spite of training=False")
@pytest.mark.parametrize("application", ["EfficientNetV2B0"], indirect=True)
def test_a_snippet_for_keras_runs_with_the_file_of_keras(application, tmp_path):
    name, theirs, _ = application
    headless = tf.keras.Model(theirs.input, theirs.get_layer("top_activation").output)
    write_h5(headless, tmp_path / "notop.h5")
    assert_close(*(tuned(side, name, tmp_path / "notop.h5") for side in (effnetv2_keras, tf.keras.applications)))


def assert_same_layers(model, other, beginning):
    """Asserts that the layers whose names begin so have equal weights in both models, which may be in another order."""
    values = [
        {path_of(v): v.numpy() for layer in m.layers if layer.name.startswith(beginning) for v in layer.weights}
        for m in (model, other)
    ]
    assert values[0].keys() == values[1].keys() != set()
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name])


def test_a_file_loads_with_other_classes_channels_and_endings(application):
    name, _, path = application
    build = getattr(effnetv2_keras, name)
    whole = build(weights=path, classifier_activation=None, input_shape=(None, None, 3))
    other = build(weights=path, classes=7, input_shape=(64, 64, 3), name="other", trainable_from="head")
    assert_same_layers(other, whole, "top_")
    assert other.output_shape == (None, 7)
    grey = build(weights=path, input_shape=(None, None, 1), include_top=False)
    kernels = [model.get_layer("stem_conv").kernel.numpy() for model in (grey, whole)]
    np.testing.assert_allclose(kernels[0], kernels[1].sum(axis=2, keepdims=True), rtol=1e-5, atol=1e-6)
    image = tf.keras.Input((None, None, 4))
    rgb = tf.keras.layers.Conv2D(3, 1, name="to_rgb")(image)
    behind = build(weights=path, input_tensor=rgb, include_top=False)
    assert_same_layers(behind, whole, "block4a")
    maps = build(weights=path, features_only=True)
    images = pixels(64, 64)
    expected = tf.keras.Model(whole.input, whole.get_layer(maps.layers[-1].name).output)(images)
    np.testing.assert_allclose(maps(images)[-1], expected, rtol=1e-5, atol=1e-6)


def test_a_name_is_a_file_in_the_cache(application, tmp_path, monkeypatch):
    name, theirs, path = application
    variant = path.name.removesuffix(".h5")
    monkeypatch.setitem(PUBLISHED, (variant, "imagenet"), (Published("http://127.0.0.1:9/top.h5", None),) * 2)
    os.link(path, tmp_path / "top.h5")
    ours = getattr(effnetv2_keras, name)(cache_dir=tmp_path, input_shape=(96, 96, 3))
    assert_close(ours(pixels(96, 96)), theirs(pixels(96, 96)))
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path))
    assert_same_weights(getattr(effnetv2_keras, name)(), ours)


@pytest.mark.slow
def test_b3_of_the_first_version_is_that_of_keras(tmp_path):
    theirs = keras_model("efficientnet-b3", input_shape=(75, 75, 3))
    write_h5(theirs, tmp_path / "b3.h5")
    ours = effnetv2_keras.EfficientNetB3(weights=tmp_path / "b3.h5", input_shape=(75, 75, 3))
    assert_close(ours(pixels(75, 75)), theirs(pixels(75, 75)))


def test_offline_a_name_fails_before_the_network_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr("effnetv2_keras.applications.build_flat", None)
    file = Published("http://127.0.0.1:9/b0.h5", "0" * 32)
    monkeypatch.setitem(PUBLISHED, ("efficientnetv2-b0", "imagenet"), (file, file))
    with pytest.raises(WeightsError, match="Cannot download http://127.0.0.1:9/b0.h5") as caught:
        effnetv2_keras.EfficientNetV2B0(cache_dir=tmp_path)
    assert f"put the file into {tmp_path}" in str(caught.value)
    assert not list(tmp_path.glob("*.h5"))


def test_weights_that_do_not_fit_are_an_error(application):
    name, _, path = application
    with pytest.raises(WeightsError, match="does not fit the model: .* is not a file of this variant. It contains"):
        effnetv2_keras.EfficientNetV2B1(weights=path)
    with pytest.raises(UsageError, match="the weights 'noisy-student' have 1000 classes"):
        effnetv2_keras.EfficientNetB0(weights="noisy-student", classes=3)
    with pytest.raises(WeightsError, match="no published weights 'noisy-student' for efficientnetv2-b0. Use one of"):
        effnetv2_keras.EfficientNetV2B0(weights="noisy-student")
