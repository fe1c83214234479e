"""Weights between the two forms of a network, and the conversion to models that load without this package."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import effnetv2_keras
from effnetv2_keras import build_model, load_weights, set_trainable, to_keras_layers
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import BatchNorm, HeadDropout, endpoints
from effnetv2_keras.models.keras_compat import sublayers
from tests.models.filling import fill_at_random
from tests.shallow import one_block_a_stage
from tests.tiny import TINY
from tests.weights.filled import assert_close, assert_same_weights, pixels, tiny, write_h5

STATISTICS = ("preprocessing/mean", "preprocessing/variance", "preprocessing/count")


def assert_equal_outputs(model, other, size=40):
    expected = np.asarray(other(pixels(size, size)))
    assert np.std(expected) > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(model(pixels(size, size)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"include_top": False, "pooling": "max", "include_preprocessing": False},
        {"activation": "relu", "bn_epsilon": 0.01, "classifier_activation": "softmax", "name": "mine"},
        {"input_shape": (40, 40, 3), "survival_prob": 1.0, "dropout_rate": 0.0},
    ],
    ids=str,
)
def test_the_converted_network_computes_the_same(settings):
    network = tiny(0, **settings)
    flat = to_keras_layers(network)
    assert (flat.name, flat.input_shape, flat.output_shape) == (network.name, network.input_shape, network.output_shape)
    assert {type(layer).__module__.split(".")[0] for layer in flat.layers} <= {"keras", "tf_keras"}
    assert_same_weights(flat, network)
    assert_equal_outputs(flat, network)


def test_layers_that_are_frozen_stay_frozen():
    network = tiny(0)
    set_trainable(network, trainable_from="block_3", freeze_bn=True)
    flat = to_keras_layers(network)
    assert len(flat.trainable_weights) == len(network.trainable_weights)
    names = ("block2b_expand_conv", "block3a_bn", "block3a_dwconv2", "predictions")
    assert [flat.get_layer(name).trainable for name in names] == [False, False, True, True]
    assert_equal_outputs(flat, network)


def test_a_mixed_precision_network_stays_one():
    flat = to_keras_layers(tiny(0, dtype="mixed_bfloat16"))
    assert [flat.get_layer(name).compute_dtype for name in ("stem_conv", "predictions")] == ["bfloat16", "float32"]


def test_weights_go_in_either_direction():
    network, other = tiny(0), tiny(1)
    flat = to_keras_layers(other)
    report = load_weights(flat, network)
    assert (len(report.loaded), report.missing, report.skipped, report.warnings) == (len(flat.weights), (), (), ())
    assert_equal_outputs(flat, network)
    fill_at_random(flat, seed=2)
    load_weights(other, flat)
    assert_equal_outputs(other, flat)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_weights(build_model("efficientnetv2-nano"), flat)


@pytest.mark.parametrize("kind", ["h5", "weights.h5", "keras", "checkpoint"])
def test_files_of_either_form_load_into_the_other(kind, tmp_path):
    network, flat = tiny(0), to_keras_layers(tiny(1))
    for source, target in ((network, flat), (flat, network)):
        path = tmp_path / f"{source.layers[1].name}.{kind}"
        if kind == "keras":
            source.save(path)
        elif kind == "checkpoint":
            path = tf.train.Checkpoint(model=source).write(str(path))
        elif kind == "h5":
            write_h5(source, path)
        else:
            source.save_weights(path)
        fill_at_random(target, seed=3)
        load_weights(target, path)
        assert_equal_outputs(target, source)
        fill_at_random(source, seed=4)


def test_a_checkpoint_of_v1_holds_its_statistics(tmp_path):
    with one_block_a_stage():
        source, target = (
            effnetv2_keras.EfficientNetB0(weights=None, classes=3, classifier_activation=None, input_shape=(64, 64, 3))
            for _ in range(2)
        )
        mean, variance = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
        source.layers[2].set_weights([mean, variance, np.array(0)])
        source.layers[2].finalize_state()
        path = tf.train.Checkpoint(model=source).write(str(tmp_path / "checkpoint"))
        assert {*STATISTICS[:2]} <= {*load_weights(target, path).loaded}
    assert_equal_outputs(target, source, 64)


def test_statistics_of_pixels_follow_the_network_of_the_weights():
    """V1 of Keras has them among its weights, the block form as constants."""
    with one_block_a_stage():
        network = build_model("efficientnet-b0", num_classes=3, input_shape=(64, 64, 3))
        fill_at_random(network)
        flat = effnetv2_keras.EfficientNetB0(
            weights=None, classes=3, classifier_activation=None, input_shape=(64, 64, 3)
        )
        report = load_weights(flat, network)
        assert {*STATISTICS} <= {*report.loaded}
        assert_close(flat(pixels(64, 64)), network(pixels(64, 64)))
        assert load_weights(network, flat).warnings == ()
        plain = effnetv2_keras.EfficientNetB0(weights=None, classes=3, input_shape=(64, 64, 3))
        assert load_weights(flat, plain).warnings == ()
        assert not flat.get_weights()[0].any()
        (warning,) = load_weights(network, plain).warnings
        assert "The network of the file has mean [0.0, 0.0, 0.0], but the model has [123.7, 116.3, 103.5]" in warning


LOAD = """
import sys
sys.modules["effnetv2_keras"] = None  # as if it were not installed
import numpy as np, tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1])
images, expected = np.load(sys.argv[2]).values()
print(float(np.abs(np.asarray(model(images)) - expected).max() / np.abs(expected).max()))
"""


def test_a_saved_network_loads_without_this_package(tmp_path):
    network = tiny(0)
    to_keras_layers(network).save(tmp_path / "model.keras")
    np.savez(tmp_path / "values.npz", pixels(40, 40), np.asarray(network(pixels(40, 40))))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", LOAD, "model.keras", "values.npz"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert float(result.stdout) < 1e-5


def test_other_models_get_the_layers_of_keras():
    image = tf.keras.Input((8, 8, 3))
    x = BatchNorm(name="norm")(tf.keras.layers.Conv2D(4, 3)(image))
    inner = tf.keras.Model(image, HeadDropout(0.3, name="drop")(tf.keras.layers.Flatten()(x)), name="inner")
    outer = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), inner, tf.keras.layers.Dense(2)])
    fill_at_random(outer)
    copy = to_keras_layers(outer)
    assert {type(part).__module__.split(".")[0] for part in sublayers(copy)} <= {"keras", "tf_keras"}
    drop = next(part for part in sublayers(copy) if part.name == "drop")
    assert drop.rate == 0.3
    np.testing.assert_allclose(copy(pixels(8, 8)), outer(pixels(8, 8)), rtol=1e-5)


def test_what_cannot_be_converted_is_told():
    network = build_model(TINY, num_classes=2)
    maps = tf.keras.Model(network.input, [*endpoints(network).values()])
    with pytest.raises(UsageError, match="returns feature maps and has no head. Pass a whole model of build_model"):
        to_keras_layers(maps)
