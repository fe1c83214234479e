from __future__ import annotations

import dataclasses
import functools
import zlib

import h5py
import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import variants
from effnetv2_keras.models import build_model, layers_by_role
from effnetv2_keras.weights import WeightsError, load_weights
from tests.models.filling import fill_at_random
from tests.tiny import TINY
from tests.weights.filled import assert_close, assert_same_weights, pixels, tiny, write_h5

V2 = [f"efficientnetv2-{size}" for size in ("b0", "b1", "b2", "b3", "s", "m", "l")]
V1 = [f"efficientnet-b{size}" for size in range(8)]
IMAGENET_MEAN, IMAGENET_VARIANCE = (0.485, 0.456, 0.406), (0.229**2, 0.224**2, 0.225**2)


def spec_of(name):
    """Our network of that name; Keras' B3 of V1 is one of its own."""
    return variants.MODELS[{"efficientnet-b3": "efficientnet-b3-keras"}.get(name, name)]


def each_variant(*fast):
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in V2 + V1]


def keras_model(name, **settings):
    """Keras' own network, all weights at random. V1's always normalizes pixels, with statistics that it loads."""
    family, _, size = name.partition("-")
    make = getattr(tf.keras.applications, f"EfficientNet{'V2' if family.endswith('v2') else ''}{size.upper()}")
    model = make(weights=None, **settings)
    for layer in model.layers:
        if layer.weights and not isinstance(layer, tf.keras.layers.Normalization):
            fill_at_random(layer, seed=zlib.crc32(layer.name.encode()))
        elif layer.weights:
            layer.set_weights([np.array(IMAGENET_MEAN), np.array(IMAGENET_VARIANCE), np.array(0)])
            layer.finalize_state()
    return model


keras_network = functools.lru_cache(maxsize=6)(keras_model)
"""One that tests share, and so leave as it is."""


@functools.lru_cache(maxsize=6)
def _built(spec, **settings):
    return build_model(spec, **settings)


def empty(name, **settings):
    """Our network of that name, one for all tests, with every weight zero."""
    model = _built(spec_of(name), **settings)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("name", each_variant("efficientnetv2-b0", "efficientnet-b0"))
def test_the_logits_are_those_of_the_keras_application_that_wrote_the_file(name, tmp_path):
    theirs = keras_network(name, classifier_activation=None, input_shape=(64, 64, 3))
    write_h5(theirs, tmp_path / "theirs.h5")
    ours = empty(name)
    report = load_weights(ours, tmp_path / "theirs.h5")
    assert (len(report.loaded), report.missing, report.mismatched) == (len(ours.weights), (), ())
    assert len(report.skipped) == (3 if name in V1 else 0)  # the normalization's mean, variance and count
    assert_close(ours(pixels(64, 64)), theirs(pixels(64, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("name", each_variant("efficientnetv2-b0"))
def test_the_features_are_those_of_the_keras_application_that_wrote_the_file(name, tmp_path):
    theirs = keras_model(name, include_top=False, input_shape=(75, 33, 3))  # V1 pads as it should if it knows the size
    write_h5(theirs, tmp_path / "theirs.h5")
    ours = empty(name, include_top=False, pooling="avg")
    load_weights(ours, tmp_path / "theirs.h5")
    features = tf.keras.Model(ours.input, layers_by_role(ours)["head"].output)
    assert_close(features(pixels(75, 33)), theirs(pixels(75, 33)))
    with_top = empty(name, num_classes=10)
    report = load_weights(with_top, tmp_path / "theirs.h5")
    assert report.missing == ("classifier/kernel", "classifier/bias")
    assert [*map(np.any, with_top.get_weights()[-2:])] == [False, False]
    for mine, other in zip(ours.get_weights(), with_top.get_weights()):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_keras_b3_of_the_first_version_is_not_the_reference_codes(tmp_path):
    write_h5(keras_model("efficientnet-b3"), tmp_path / "b3.h5")
    with pytest.raises(ValueError, match="contains the weights of 'efficientnet-b3-keras'; build that model"):
        load_weights(build_model("efficientnet-b3"), tmp_path / "b3.h5")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_of_a_whole_trained_model_with_the_application_inside_it(tmp_path):
    base = keras_network("efficientnetv2-b0", include_top=False, pooling="avg", input_shape=(64, 64, 3))
    whole = tf.keras.Sequential([tf.keras.Input((64, 64, 3)), base, tf.keras.layers.Dense(4)])
    whole.compile("adam", "mse")
    whole.optimizer.build(whole.trainable_variables)
    whole.save(tmp_path / "whole.h5")
    ours = empty("efficientnetv2-b0", include_top=False, pooling="avg")
    report = load_weights(ours, tmp_path / "whole.h5")
    assert any("dense" in name for name in report.skipped)
    assert any(name.startswith("optimizer_weights/") for name in report.skipped)
    assert_close(ours(pixels(64, 64)), base(pixels(64, 64)))


@pytest.mark.parametrize("name", each_variant("efficientnet-b0"))
def test_a_keras_application_in_a_file_that_counts_layers_by_class(name, tmp_path):
    theirs = keras_network(name, classifier_activation=None, input_shape=(64, 64, 3))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours = empty(name)
    report = load_weights(ours, tmp_path / "theirs.weights.h5")
    assert (len(report.loaded), report.missing, report.mismatched) == (len(ours.weights), (), ())
    assert len(report.skipped) == (3 if name in V1 else 0)
    assert_close(ours(pixels(64, 64)), theirs(pixels(64, 64)))


@pytest.mark.parametrize("nested", [True, False])
def test_an_archive_of_a_trained_model_with_the_application_in_it(nested, tmp_path):
    base = keras_network("efficientnetv2-b0", include_top=False, pooling="avg", input_shape=(64, 64, 3))
    image = tf.keras.Input((64, 64, 3))
    features = base(image) if nested else base.output
    output = tf.keras.layers.Dense(4)(tf.keras.layers.Dense(10)(tf.keras.layers.BatchNormalization()(features)))
    whole = tf.keras.Model(image if nested else base.input, output)
    whole.compile("adam", "mse")
    whole.optimizer.build(whole.trainable_variables)
    whole.save(tmp_path / "whole.keras")
    ours = empty("efficientnetv2-b0", num_classes=10)
    report = load_weights(ours, tmp_path / "whole.keras")
    assert (report.missing, report.mismatched) == (("classifier/kernel", "classifier/bias"), ())
    assert any("batch_normalization" in name for name in report.skipped)
    assert any("optimizer" in name for name in report.skipped)
    pooled = tf.keras.Model(ours.input, layers_by_role(ours)["classifier"].input)
    assert_close(pooled(pixels(64, 64)), base(pixels(64, 64)))


def test_an_archive_of_another_application_is_refused(tmp_path):
    keras_model("efficientnetv2-b1").save_weights(tmp_path / "b1.weights.h5")
    with pytest.raises(ValueError, match=r"does not fit the model: \d+ of \d+ weights fit"):
        load_weights(empty("efficientnetv2-b0"), tmp_path / "b1.weights.h5")


@pytest.mark.parametrize("file_name", ["ours.h5", "ours.weights.h5", "ours.keras"])
@pytest.mark.parametrize("prefix", [None, "head"])
def test_our_own_files(file_name, prefix, tmp_path):
    """A model's name goes in front of its layers': here one that is also a layer's."""
    saved = tiny(seed=3, name=prefix)
    save = {".h5": functools.partial(write_h5, saved), ".keras": saved.save}.get(file_name[4:], saved.save_weights)
    save(tmp_path / file_name)
    model = tiny(seed=4, name="other")
    report = load_weights(model, tmp_path / file_name)
    assert (report.missing, report.mismatched, report.skipped) == ((), (), ())
    assert_same_weights(model, saved)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("file_name", ["ours.h5", "ours.keras"])
def test_a_whole_trained_model_of_ours(file_name, tmp_path):
    saved = tiny(seed=3)
    saved.compile("adam", "mse")
    saved.optimizer.build(saved.trainable_variables)
    saved.save(tmp_path / file_name)
    model = tiny(seed=4)
    report = load_weights(model, tmp_path / file_name)
    assert report.skipped
    assert all("optimizer" in name for name in report.skipped)
    assert_same_weights(model, saved)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("widths", [[7], [5, 7]])
def test_an_archive_of_a_model_with_ours_in_it(nested, widths, tmp_path):
    base = tiny(seed=3, include_top=False, pooling="avg")
    image = tf.keras.Input((32, 32, 3))
    output = tf.keras.layers.BatchNormalization()(base(image) if nested else base.output)
    for width in widths:
        output = tf.keras.layers.Dense(width)(output)
    tf.keras.Model(image if nested else base.input, output).save(tmp_path / "whole.keras")
    model = tiny(seed=4)
    report = load_weights(model, tmp_path / "whole.keras")
    assert {mismatch.name for mismatch in report.mismatched} <= {"classifier/kernel", "classifier/bias"}
    assert not any(name.startswith("classifier") for name in report.loaded)
    assert len(report.loaded) == len(base.weights)
    bare = tiny(include_top=False, pooling="avg")
    load_weights(bare, tmp_path / "whole.keras")
    assert_same_weights(bare, base)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "cut.h5"
    write_h5(tiny(seed=3), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"cut\.h5 cannot be read; it may be damaged or incomplete"):
        load_weights(tiny(), path)


def test_a_file_of_something_else_is_refused(tmp_path):
    with h5py.File(tmp_path / "else.h5", "w") as file:
        file["some/numbers:0"] = np.arange(3.0)
    with pytest.raises(ValueError, match="contains no weights with known names. Supported formats are HDF5"):
        load_weights(tiny(), tmp_path / "else.h5")


def test_an_archive_of_a_network_that_computes_something_else_gives_a_warning(tmp_path):
    spec, model = dataclasses.replace(TINY, normalization="symmetric"), tiny()
    for name, saved in (
        ("alike", build_model(spec, num_classes=5, activation="swish")),
        ("epsilon", tiny(bn_epsilon=1e-5)),
        ("activation", tiny(activation="relu", name="prefix")),
    ):
        saved.save(tmp_path / f"{name}.keras")
        warnings = load_weights(model, tmp_path / f"{name}.keras").warnings
        expected = {
            "epsilon": "bn_epsilon 1e-05, but the model has 0.001",
            "activation": "activation relu, but the mod",
        }
        assert len(warnings) == (name in expected)
        assert name == "alike" or f"The network of the file has {expected[name]}" in warnings[0]
        assert_same_weights(model, saved)


def _changed(tmp_path, dtype):
    """Writes weights of the tiny network, with the first array as zeros of another type; returns path and array."""
    path = tmp_path / "changed.h5"
    write_h5(tiny(0), path)
    with h5py.File(path, "a") as file:
        places: list[str] = []
        file.visititems(lambda place, item: places.append(place) if isinstance(item, h5py.Dataset) else None)
        place = next(place for place in places if "kernel" in place)
        values = file[place][()]
        del file[place]
        if dtype == "V2":
            file[place] = tf.cast(values, tf.bfloat16).numpy().view("V2")
        else:
            file.create_dataset(place, values.shape, dtype)
    return path


@pytest.mark.parametrize("dtype", ["V4", [("a", "f4"), ("b", "f4")]], ids=["opaque", "compound"])
def test_arrays_that_are_no_numbers_are_refused(tmp_path, dtype):
    with pytest.raises(WeightsError, match="but weights are numbers"):
        load_weights(tiny(), _changed(tmp_path, dtype))


def test_bfloat16_is_read_as_keras_3_writes_it(tmp_path):
    model = tiny()
    load_weights(model, _changed(tmp_path, "V2"))
    for ours, theirs in zip(model.get_weights(), tiny(0).get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=2**-8)


def test_names_that_are_not_utf8_are_a_message(tmp_path):
    with h5py.File(tmp_path / "bytes.h5", "w") as file:
        file[b"\xff/kernel:0"] = np.zeros(3)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(tiny(), tmp_path / "bytes.h5")
