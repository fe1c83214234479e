"""Networks of Keras' own layers against those of ``tf.keras.applications``: layers, weights, settings and outputs."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import effnetv2_keras
from effnetv2_keras import to_keras_layers
from effnetv2_keras.architecture import keras_names, specs, variants
from effnetv2_keras.architecture.specs import BlockSpec, ModelSpec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model, set_trainable
from effnetv2_keras.models.flat import FlatSettings, Pixels, Top, build_flat_model
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of
from tests.models.filling import fill_at_random
from tests.shallow import one_block_a_stage
from tests.tiny import TINY

V2 = ["B0", "B1", "B2", "B3", "S", "M", "L"]
NAMES = [*(f"EfficientNetV2{size}" for size in V2), *(f"EfficientNetB{size}" for size in range(8))]
QUICK = ("EfficientNetV2B0", "EfficientNetB0")
each_network = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
SCALES = ("width_coefficient", "depth_coefficient", "default_size")


def spec_of(name):
    variant = name.replace("EfficientNetV2", "efficientnetv2-").replace("EfficientNet", "efficientnet-").lower()
    return variants.MODELS[{"efficientnet-b3": "efficientnet-b3-keras"}.get(variant, variant)]


def both(name, **settings):
    """Returns Keras' network and ours, each built in a fresh session, because both have layers with numbered names."""
    models = []
    for side in (tf.keras.applications, effnetv2_keras):
        tf.keras.backend.clear_session()
        models.append(getattr(side, name)(weights=None, **settings))
    return models


def layers_of(model):
    return [(type(layer).__name__, layer.name, tuple(layer.output.shape)) for layer in model.layers]


def weights_of(model):
    return [(path_of(weight), tuple(weight.shape), weight.dtype) for weight in model.weights]


def configs_of(model):
    """Returns the settings of all layers; Keras has a bias of zeros by another name."""
    return [
        {key: value for key, value in layer.get_config().items() if key != "bias_initializer"} for layer in model.layers
    ]


def random_values(model, seed=0):
    """Returns values for all weights of a network: kernels as they are, everything else at random."""
    numbers = np.random.default_rng(seed)
    return [
        value if value.ndim != 1 else numbers.uniform(0.5, 1.5, value.shape).astype(value.dtype)
        for value in model.get_weights()
    ]


def images(*shape):
    return np.random.default_rng(1).integers(0, 256, [2, *shape]).astype(np.float32)


def assert_same_network(theirs, ours):
    assert ours.name == theirs.name
    assert layers_of(ours) == layers_of(theirs)
    assert weights_of(ours) == weights_of(theirs)
    assert configs_of(ours) == configs_of(theirs)
    values = random_values(theirs)
    for model in (ours, theirs):
        model.set_weights(values)
    pixels = images(*(size or 64 for size in theirs.input_shape[1:]))
    expected = np.asarray(theirs(pixels))
    assert np.std(expected) > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(ours(pixels), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@each_network
def test_layers_weights_settings_and_outputs_are_those_of_keras(name):
    assert_same_network(*both(name, classes=10, input_shape=(64, 75, 3)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EfficientNetB0", {"include_top": False, "pooling": "max", "input_shape": (75, 97, 1)}),
        ("EfficientNetV2B0", {"include_top": False}),
        ("EfficientNetV2B0", {"include_top": False, "pooling": "avg", "input_shape": (40, 64, 4)}),
    ],
    ids=str,
)
def test_settings_mean_what_they_mean_in_keras(name, settings):
    with one_block_a_stage():
        assert_same_network(*both(name, **settings))


def keras_blocks(name):
    """Returns the names and the shapes of Keras' blocks, computed by Keras' tables without building the network."""
    function = getattr(tf.keras.applications, name)
    module = sys.modules[function.__module__]
    v2 = "V2" in name
    with mock.patch.object(module, "EfficientNetV2" if v2 else "EfficientNet") as build:
        function(weights=None)
    settings = build.call_args.kwargs
    title = settings["name" if IS_KERAS_3 else "model_name"]
    width, depth, size = (settings.get(key, given) for key, given in zip(SCALES, build.call_args.args or (0, 0, 0)))
    blocks = []
    table = module.DEFAULT_BLOCKS_ARGS[title] if v2 else module.DEFAULT_BLOCKS_ARGS
    for stage, start in enumerate(table, start=1):
        row = start
        taken, given = (
            row[key] for key in (("input_filters", "output_filters") if v2 else ("filters_in", "filters_out"))
        )
        taken, given = (specs.round_filters(filters, width, 0 if v2 else 0.9) for filters in (taken, given))
        kind = "fused_mbconv" if row.get("conv_type") else "mbconv"
        repeats = -(-row["num_repeat" if v2 else "repeats"] * depth // 1)
        for index in range(int(repeats)):
            block = BlockSpec(
                kind, 1, row["kernel_size"], row["strides"], row["expand_ratio"], taken, given, row["se_ratio"]
            )
            blocks.append((f"block{stage}{string.ascii_lowercase[index]}_", block))
            row, taken = {**start, "strides": 1}, given
    return title, size, blocks


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_has_the_blocks_of_keras(name):
    """With the networks that are built and compared, this says that the others have Keras' layers too."""
    spec = spec_of(name)
    expanded = specs.expand(spec)
    title, size, blocks = keras_blocks(name)
    assert (keras_names.model_name(spec), spec.eval_size) == (title, size)
    assert [*zip(keras_names.block_prefixes(expanded.stage_ends), expanded.blocks)] == blocks


@pytest.mark.parametrize("name", [*variants.MODELS])
def test_stages_are_found_again_from_the_blocks(name):
    expanded = specs.expand(variants.MODELS[name])
    assert keras_names.stage_ends_of(expanded.blocks) == expanded.stage_ends


def test_letters_go_on_after_z():
    prefixes = keras_names.block_prefixes(specs.expand(variants.MODELS["efficientnetv2-xl"]).stage_ends)
    assert len({*prefixes}) == len(prefixes) == 100
    assert [prefix for prefix in prefixes if prefix.startswith("block6")][24:29] == [
        "block6y_", "block6z_", "block6aa_", "block6ab_", "block6ac_"
    ]  # fmt: skip
    places = keras_names.places(["stem_conv", *(f"{prefix}project_bn" for prefix in prefixes)])
    assert [*places.values()] == ["stem/conv", *(f"block_{index}/project/norm" for index in range(100))]


def test_v1_uses_the_statistics_of_its_weights_in_a_third_layer(tmp_path, monkeypatch):
    """As Keras' network for ``weights="imagenet"``, whose file has the deviation in place of the variance."""
    from effnetv2_keras.weights import registry

    with one_block_a_stage():
        donor = effnetv2_keras.EfficientNetB0(weights=None, input_shape=(64, 64, 3))
        donor.set_weights(random_values(donor))
        normalization = next(layer for layer in donor.layers if isinstance(layer, tf.keras.layers.Normalization))
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        normalization.set_weights([mean, deviation, np.array(0)])
        donor.save_weights(tmp_path / "b0.weights.h5")
        monkeypatch.setattr(registry, "fetch", lambda *_, **__: tmp_path / "b0.weights.h5")
        named = effnetv2_keras.EfficientNetB0(weights="imagenet", input_shape=(64, 64, 3))
        by_path = effnetv2_keras.EfficientNetB0(weights=tmp_path / "b0.weights.h5", input_shape=(64, 64, 3))
    assert [type(layer).__name__ for layer in named.layers[1:4]] == ["Rescaling", "Normalization", "Rescaling"]
    np.testing.assert_allclose(named.layers[3].scale, deviation**-0.5)
    np.testing.assert_allclose(named.get_weights()[1], deviation, rtol=1e-6)
    pixels = images(64, 64, 3)
    normalized = tf.keras.Model(named.input, named.layers[3].output)(pixels)
    np.testing.assert_allclose(normalized, (pixels / 255 - mean) / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_path(pixels), named(pixels), rtol=1e-4, atol=1e-6)


def flat_of(spec, **settings):
    expanded = specs.expand(spec)
    image = tf.keras.Input((33, 33, 3))
    rates = keras_names.drop_rates(spec, expanded, 0.2)
    style = keras_names.style_of(spec.name)
    return build_flat_model(expanded, image, image, FlatSettings(style, rates, **settings), Top(), name=spec.name)


@pytest.mark.parametrize("kind", ["mbconv", "fused_mbconv"])
@pytest.mark.parametrize("expand_ratio", [1, 2])
def test_both_forms_of_every_block_compute_the_same(kind, expand_ratio):
    """Also with squeeze-and-excite in fused blocks, which no variant has."""
    stages = [
        BlockSpec(kind, 2, 3, stride, expand_ratio, *filters, 0.25) for stride, filters in ((1, (8, 8)), (2, (8, 16)))
    ]
    network = build_model(ModelSpec("own", tuple(stages), head_filters=16), num_classes=3, input_shape=(33, 40, 3))
    fill_at_random(network)
    flat = to_keras_layers(network)
    expected = network(images(33, 40, 3)).numpy()
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(flat(images(33, 40, 3)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("pixels", "classes"),
    [
        (Pixels(*specs.PIXEL_STATISTICS["symmetric"]), ["Rescaling"]),
        (Pixels(*specs.PIXEL_STATISTICS["caffe"]), ["Rescaling"]),
        (Pixels(*specs.PIXEL_STATISTICS["imagenet"]), ["Rescaling", "Normalization"]),
        (None, []),
    ],
)
def test_every_normalization_is_computed(pixels, classes):
    model = flat_of(TINY, pixels=pixels)
    found = [
        layer for layer in model.layers if isinstance(layer, (tf.keras.layers.Rescaling, tf.keras.layers.Normalization))
    ]
    assert [type(layer).__name__ for layer in found] == classes
    if pixels:
        normalized = tf.keras.Model(model.input, found[-1].output)(images(33, 33, 3))
        expected = (images(33, 33, 3) - np.array(pixels.mean)) / np.array(pixels.deviation)
        np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-5)


def test_mixed_precision_ends_in_float32():
    model = flat_of(TINY, pixels=None, dtype="mixed_bfloat16")
    assert model.get_layer("block3a_dwconv2").compute_dtype == "bfloat16"
    with one_block_a_stage():
        model = effnetv2_keras.EfficientNetV2B0(weights=None, dtype="mixed_bfloat16", input_shape=(32, 32, 3))
    assert [model.get_layer(name).compute_dtype for name in ("stem_conv", "avg_pool", "predictions")] == [
        "bfloat16", "float32", "float32"
    ]  # fmt: skip
    assert model(images(32, 32, 3)).dtype == tf.float32


def test_layers_are_chosen_by_role_by_block_and_by_name():
    with one_block_a_stage():
        model = effnetv2_keras.EfficientNetV2B0(weights=None, classes=2, input_shape=(32, 32, 3))

    def trained(**choice):
        set_trainable(model, **choice)
        return {path_of(weight).split("/")[0] for weight in model.trainable_weights}

    top = {"top_conv", "top_bn", "predictions"}
    last = {name for name in (layer.name for layer in model.layers) if name.startswith("block6a_")}
    for start in ("block_5", "block6a", "block6a_expand_conv"):
        assert trained(trainable_from=start) == top | {
            name for name in last if not name.endswith(("ion", "cite", "ape", "eeze"))
        }
    assert (
        trained(trainable_from="classifier") == trained(trainable_layers="predictions|block1a_add") == {"predictions"}
    )
    assert trained(trainable_layers=r"block_0|block2a") == {f"block1a_project_{kind}" for kind in ("conv", "bn")} | {
        f"block2a_{part}_{kind}" for part in ("expand", "project") for kind in ("conv", "bn")
    }
    assert trained(trainable_from="head", freeze_bn=True) == {"top_conv", "predictions"}
    assert trained() == trained(trainable_layers=".*") == {path_of(weight).split("/")[0] for weight in model.weights}
    with pytest.raises(
        UsageError, match="did you mean 'block6a_dwconv2'.*head, pool, dropout, classifier, or the name of a"
    ):
        trained(trainable_from="block6a_dwconv")


JAX = """
import sys
import keras
import numpy as np
from effnetv2_keras import EfficientNetB0, EfficientNetV2B0
from tests.shallow import one_block_a_stage

assert keras.backend.backend() == "jax"
values, folder = np.load(f"{sys.argv[1]}/values.npz"), sys.argv[1]
settings = {"classes": 4, "input_shape": (48, 40, 3), "classifier_activation": None}
for function in (EfficientNetB0, EfficientNetV2B0):
    with one_block_a_stage():
        model = function(weights=f"{folder}/{function.__name__}.weights.h5", **settings)
    outputs, expected = model.predict(values["images"], verbose=0), values[function.__name__]
    assert np.abs(outputs - expected).max() <= 1e-4 * np.abs(expected).max(), np.abs(outputs - expected).max()
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = model.get_weights()
history = model.fit(values["images"], np.arange(len(values["images"])) % 4, batch_size=2, epochs=1, verbose=0)
assert np.isfinite(history.history["loss"][0])
assert sum(not np.array_equal(old, new) for old, new in zip(before, model.get_weights())) > 0.9 * len(before)
print("as with TensorFlow")
"""


@pytest.mark.skipif(not IS_KERAS_3, reason="needs Keras 3")
def test_the_networks_run_and_train_with_jax(tmp_path):
    pytest.importorskip("jax")
    values = {"images": images(48, 40, 3)}
    for name in QUICK:
        with one_block_a_stage():
            model = getattr(effnetv2_keras, name)(
                weights=None, classes=4, input_shape=(48, 40, 3), classifier_activation=None
            )
        fill_at_random(model) if "V2" in name else model.set_weights(random_values(model))
        model.save_weights(tmp_path / f"{name}.weights.h5")
        model.load_weights(tmp_path / f"{name}.weights.h5")  # Keras' normalization uses weights that were loaded
        values[name] = np.asarray(model(values["images"]))
    np.savez(tmp_path / "values.npz", **values)
    result = subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "as with TensorFlow", result.stderr[-3000:]


@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 is installed without its tests")
@pytest.mark.slow
def test_the_tests_of_keras_pass_with_these_networks():
    result = subprocess.run(
        [sys.executable, "-m", "tests.models.keras_own_tests", "EfficientNetB0_", "EfficientNetV2B0_"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:]
