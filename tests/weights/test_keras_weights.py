"""Keras' own weights in Keras' own networks."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture.keras_inputs import NORMALIZATION
from effnetv2_keras.architecture.specs import KerasSpec, pixel_rescaling
from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.keras_models import build_keras_model
from effnetv2_keras.models.naming import layers_by_name
from effnetv2_keras.models.rebuilding import rebuild
from effnetv2_keras.weights import WeightsError, keras_networks
from effnetv2_keras.weights.loading import load_configured
from tests import own_networks
from tests.models.filling import fill_at_random
from tests.shallow import one_block_a_stage
from tests.weights.filled import assert_close, pixels, write_h5
from tests.weights.test_hdf5 import keras_model


def config_of(**changes):
    return Config().override({"model.model_name": "keras:MobileNet", "train.ft_init_ckpt": "imagenet", **changes})


@pytest.mark.slow
def test_the_logits_are_those_of_keras(tmp_path, monkeypatch):
    """Of a network whose file is where Keras looks for it, and for which Keras has no checksum."""
    published = tf.keras.applications.MobileNet(weights=None, classifier_activation=None)
    fill_at_random(published, seed=1)
    (tmp_path / ".keras" / "models").mkdir(parents=True)
    write_h5(published, tmp_path / ".keras" / "models" / "mobilenet_1_0_224_tf.h5")
    if IS_KERAS_3:  # which has read HOME when it was imported
        monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / ".keras"))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
    config = config_of()
    model = build_for(config, 1000)
    report = load_configured(model, config)
    assert len(report.loaded) == len(published.weights)
    assert not report.mismatched
    assert not report.warnings
    images = pixels(224, 224)
    assert_close(model(images), published(tf.keras.applications.mobilenet.preprocess_input(images)))


def test_other_classes_have_a_new_classifier(monkeypatch, caplog):
    published = own_networks.tiny(7)
    fill_at_random(published, seed=1)
    monkeypatch.setattr(keras_networks, "application", lambda *_: published)
    monkeypatch.setitem(NORMALIZATION, "Tiny", "symmetric")
    model = build_for(config_of(**{"model.model_name": "keras:tests.own_networks:tiny", "train.ft_init_ckpt": None}), 3)
    layers = [layer for layer in layers_by_name(model).values() if layer.weights]
    fresh = layers[-1].get_weights()
    report = keras_networks.load_keras_weights(model, "Tiny", "imagenet")
    assert [part.in_model[-1] for part in report.mismatched] == [3, 3]
    assert len(report.loaded) == len(published.weights) - 2
    expected = [value for layer in published.layers[:-1] for value in layer.get_weights()] + fresh
    for value, other in zip([value for layer in layers for value in layer.get_weights()], expected):
        np.testing.assert_array_equal(value, other)
    warning = "These weights are for model.normalization=symmetric, but it is imagenet."
    assert report.warnings == (warning,)
    assert warning in caplog.text


@pytest.mark.parametrize("given", [False, True])
def test_learned_statistics_of_pixels_are_those_of_imagenet(given):
    spec = KerasSpec("keras:tests.own_networks:bare")
    model = build_keras_model(spec, num_classes=2, imagenet_statistics=given)
    images = np.full([1, 1, 1, 3], 0.5, np.float32)
    expected = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(layers_by_name(model)["pixels"](images), expected, atol=1e-5) == given


@pytest.mark.slow
def test_efficientnet_has_the_statistics_of_imagenet_with_the_weights_alone():
    """Keras builds another network for its own weights, which also divides by the root of the deviation again."""
    with one_block_a_stage():
        theirs = keras_model("efficientnet-b0", classifier_activation=None)  # with what that amounts to
        config = config_of(**{"model.model_name": "keras:EfficientNetB0"})
        model = build_for(config, 1000)
        keras_networks.copy_weights(rebuild(theirs, bn_momentum=0.99, dtype="float32"), model, bgr=False)
        images = pixels(224, 224)
        assert_close(model(images), theirs(images))


def test_only_imagenet_is_known():
    with pytest.raises(UsageError, match="train.ft_init_ckpt is 'imagenet21k', but keras:MobileNet has only the"):
        build_for(config_of(**{"train.ft_init_ckpt": "imagenet21k"}), 3)


def test_networks_for_images_as_bgr_take_rgb():
    """Weights of ResNet50 and others were trained by Caffe."""

    def network(classes):
        images = tf.keras.Input([None, None, 3])
        x = tf.keras.layers.Conv2D(4, 3, name="first")(images)
        x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
        return tf.keras.Model(images, tf.keras.layers.Dense(classes, name="top")(x), name="Net")

    source, model = network(5), network(5)
    fill_at_random(source, seed=1)
    report = keras_networks.copy_weights(source, model, bgr=True)
    assert report.loaded == ("first/kernel", "first/bias", "top/kernel", "top/bias")
    images = pixels(8, 8)
    assert_close(model(images), source(images[..., ::-1]))


@pytest.mark.parametrize("name", NORMALIZATION)
def test_the_normalization_is_that_of_preprocess_input(name):
    function = getattr(tf.keras.applications, name)
    images = np.random.default_rng(0).uniform(0, 255, [1, 4, 4, 3]).astype(np.float32)
    theirs = sys.modules[function.__module__].preprocess_input(images.copy())
    scale, offset = pixel_rescaling(NORMALIZATION[name])
    ours = images * np.asarray(scale) + np.asarray(offset)
    if NORMALIZATION[name] == "caffe":
        ours = ours[..., ::-1]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_other_networks_do_not_need_one():
    """They normalize pixels themselves, so that their ``preprocess_input`` does nothing, or have Flatten."""
    images = np.full([1, 2, 2, 3], 77, np.float32)
    for name, function in inspect.getmembers(tf.keras.applications, inspect.isfunction):
        if name not in NORMALIZATION and not name.startswith("VGG"):
            np.testing.assert_array_equal(sys.modules[function.__module__].preprocess_input(images.copy()), images)


def test_the_setting_decides_only_without_another():
    assert config_of().spec.normalization == "symmetric"
    assert config_of(**{"train.ft_init_ckpt": None}).spec.normalization == "imagenet"  # as in older runs
    assert config_of(**{"model.normalization": "centered"}).spec.normalization == "centered"
    assert config_of(**{"model.include_preprocessing": False}).input_normalization == "symmetric"
    assert config_of(**{"model.model_name": "keras:ResNet50"}).spec.normalization == "caffe"


def test_without_a_connection_the_message_says_what_to_do(monkeypatch, caplog):
    asked = []

    def fail(*_):
        asked.append(_)
        raise Exception("URL fetch failure on https://host/mobilenet.h5: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras_networks, "application", fail)
    monkeypatch.setattr(keras_networks.download, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("HOME", "/home")
    with pytest.raises(WeightsError) as caught:
        keras_networks.load_keras_weights(None, "MobileNet", "symmetric")
    for text in (
        "https://host/mobilenet.h5",
        "looked for the file of that address in /home/.keras/models",
        "ft_init_ckpt= ",
    ):
        assert text in str(caught.value)
    assert len(asked) == keras_networks.download.ATTEMPTS
    assert caplog.text.count("Trying again in") == len(asked) - 1
