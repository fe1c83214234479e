from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import build_model
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of, sublayers
from tests.models.filling import fill_at_random
from tests.tiny import TINY

IMAGES = np.random.default_rng(0).integers(0, 256, [2, 33, 40, 3]).astype(np.float32)


def filled(**settings):
    model = build_model(TINY, num_classes=5, name="saved", **settings)
    fill_at_random(model)
    return model


@pytest.fixture(scope="module")
def model():
    return filled()


def assert_same(model, other):
    assert [path_of(variable) for variable in other.variables] == [path_of(variable) for variable in model.variables]
    assert other.name == model.name
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))
    assert [layer.get_config() for layer in other.layers] == [layer.get_config() for layer in model.layers]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_keras_file_gives_the_same_model(dtype, tmp_path):
    model = filled(dtype=dtype)
    model.save(tmp_path / "model.keras")
    assert_same(model, tf.keras.models.load_model(tmp_path / "model.keras"))


def test_an_architecture_and_a_weights_file_give_the_same_model(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    other = tf.keras.models.model_from_json(model.to_json())
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(model, other)


def test_a_clone_with_the_weights_is_the_same_model(model):
    other = tf.keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    assert_same(model, other)


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 writes SavedModels by export alone, which the next test tests")
def test_a_saved_model_gives_the_same_without_our_code(model, tmp_path):
    model.save(tmp_path / "keras", save_format="tf")
    loaded = tf.saved_model.load(tmp_path / "keras")
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


def test_an_export_gives_the_same_without_our_code(model, tmp_path):
    model.export(tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.serve(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_gives_the_same_weights(model, tmp_path):
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    other = build_model(TINY, num_classes=5, name="saved")
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_same(model, other)


def test_every_config_is_plain_data(model):
    parts = sublayers(model)
    written = [json.dumps(part.get_config()) for part in parts]  # fails on anything but plain data
    assert len(written) > 30


def test_keras_trains_and_saves_a_model(tmp_path):
    model = build_model(TINY, num_classes=5)
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [weights for layer in (model.get_layer("stem"), model.layers[-1]) for weights in layer.get_weights()]
    model.fit(IMAGES, np.array([0, 1]), verbose=0)
    after = [weights for layer in (model.get_layer("stem"), model.layers[-1]) for weights in layer.get_weights()]
    assert not any(np.array_equal(old, new) for old, new in zip(before, after))
    model.save(tmp_path / "model.keras")
    other = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(other(IMAGES), model(IMAGES))
