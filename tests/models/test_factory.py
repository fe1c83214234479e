from __future__ import annotations

import dataclasses
import inspect
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import profile, variants
from effnetv2_keras.models import build_model, endpoints, layers_by_role, stochastic_scope
from effnetv2_keras.models.keras_compat import path_of, sublayers
from tests.models.filling import fill_at_random
from tests.reference import REFERENCE
from tests.tiny import TINY


def tiny(**settings):
    return build_model(TINY, num_classes=5, **settings)


def pixels(count=4, size=24):
    return np.random.default_rng(0).integers(0, 256, [count, size, size, 3], dtype=np.uint8)


@pytest.fixture(scope="module")
def b0():
    return build_model("efficientnetv2-b0", name="backbone")


def count(model):
    return model.count_params(), sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_b0_has_the_parameters_of_the_reference_code(b0):
    assert count(b0) == REFERENCE["efficientnetv2-b0"][1:3]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_every_variant_has_the_parameters_of_the_reference_code(name):
    assert count(build_model(name)) == REFERENCE[name][1:3]


@pytest.mark.parametrize(("name", "scale"), [("efficientnetv2-nano", 0.5), ("efficientnetv2-micro", 0.75)])
def test_the_small_variants_are_b0_scaled_by_keras(name, scale):
    keras = sys.modules[tf.keras.applications.EfficientNetV2B0.__module__]
    shape = {"width_coefficient": scale, "depth_coefficient": scale, "default_size": 64}
    name_of_table = "model_name" if "model_name" in inspect.signature(keras.EfficientNetV2).parameters else "name"
    theirs = keras.EfficientNetV2(**shape, weights=None, classes=10, **{name_of_table: "efficientnetv2-b0"})
    spec = variants.MODELS[name]
    assert profile.count_parameters(spec, num_classes=10).trainable == count(theirs)[1]
    assert count(build_model(name, num_classes=10))[1] == count(theirs)[1]


def test_layers_keep_their_names():
    names = [
        "image",
        "preprocessing",
        "stem",
        *(f"block_{i}" for i in range(5)),
        "head",
        "pool",
        "dropout",
        "classifier",
    ]
    assert [layer.name for layer in tiny().layers] == names
    assert [layer.name for layer in tiny(name="left").layers] == [f"left_{name}" for name in names]
    assert list(layers_by_role(tiny(name="left"))) == names
    assert (tiny().name, tiny(name="left").name) == ("tiny", "left")


def test_two_models_share_a_graph():
    left, right = tiny(name="left"), tiny(name="right")
    joined = tf.keras.Model([left.input, right.input], tf.keras.layers.Concatenate()([left.output, right.output]))
    assert len({path_of(variable) for variable in joined.variables}) == len(joined.variables)
    images = pixels()
    np.testing.assert_array_equal(joined([images, images]), np.concatenate([left(images), right(images)], 1))


def test_layers_of_a_foreign_model_have_no_role():
    foreign = tf.keras.Sequential([tf.keras.layers.Dense(1, name="images", input_shape=[2])], name="other")
    with pytest.raises(ValueError, match="'other' has no layer 'stem'. Pass a model of build_model"):
        layers_by_role(foreign)


def test_endpoints_are_the_last_maps_of_each_stride(b0):
    found = endpoints(b0)
    assert {stride: output.shape[-1] for stride, output in found.items()} == {2: 16, 4: 32, 8: 48, 16: 112, 32: 192}
    features = tf.keras.Model(b0.input, list(found.values()))
    assert [output.shape[1:3] for output in features(pixels(1, 64))] == [[32, 32], [16, 16], [8, 8], [4, 4], [2, 2]]


def test_drop_path_grows_linearly_from_zero(b0):
    rates = [layer.drop_path_rate for role, layer in layers_by_role(b0).items() if role.startswith("block_")]
    np.testing.assert_allclose(rates, 0.2 * np.arange(21) / 21)


def test_in_training_samples_drop_different_blocks():
    image = np.repeat(pixels(1), 32, axis=0)
    for survival_prob, distinct in ((1.0, 1), (0.1, 4)):  # one block is never dropped, two may be
        model = tiny(survival_prob=survival_prob, dropout_rate=0.0)
        with stochastic_scope(tf.constant([0, 1])):
            logits = model(image, training=True).numpy()
        assert len(np.unique(logits.round(4), axis=0)) == distinct


@pytest.mark.parametrize("size", [(17, 40), (32, 32), (1, 1)])
def test_a_model_takes_any_size(size):
    model = tiny()
    assert model(np.zeros([2, *size, 3], np.uint8)).shape == [2, 5]


def test_bytes_floats_and_normalised_pixels_give_the_same():
    images = pixels()
    for normalization, normalize in (
        ("centered", lambda x: (x - 128) / 128),
        ("symmetric", lambda x: (x / 255 - 0.5) / 0.5),
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ):
        spec = dataclasses.replace(TINY, normalization=normalization)
        model, bare = build_model(spec, num_classes=5), build_model(spec, num_classes=5, include_preprocessing=False)
        fill_at_random(model)
        bare.set_weights(model.get_weights())
        np.testing.assert_array_equal(model(images), model(images.astype(np.float32)))
        np.testing.assert_allclose(model(images), bare(normalize(images.astype(np.float64))), rtol=1e-4, atol=1e-5)


def test_a_model_without_top_gives_its_features():
    images = pixels()
    bare, average, maximum = (tiny(include_top=False, pooling=pooling) for pooling in (None, "avg", "max"))
    fill_at_random(bare)
    average.set_weights(bare.get_weights())
    maximum.set_weights(bare.get_weights())
    features = bare(images).numpy()
    assert features.shape == (4, 3, 3, 32)
    np.testing.assert_allclose(average(images), features.mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maximum(images), features.max((1, 2)), rtol=1e-6)


def test_the_classifier_ends_as_told():
    logits, probabilities = tiny(), tiny(classifier_activation="softmax")
    fill_at_random(logits)
    probabilities.set_weights(logits.get_weights())
    np.testing.assert_allclose(probabilities(pixels()), tf.nn.softmax(logits(pixels())), rtol=1e-5)


def test_settings_reach_the_layers():
    model = tiny(dropout_rate=0.35, bn_momentum=0.7, bn_epsilon=0.01, activation="relu")
    norms = [part for part in sublayers(model) if isinstance(part, tf.keras.layers.BatchNormalization)]
    assert len(norms) == 13
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.7, 0.01)}
    roles = layers_by_role(model)
    assert roles["dropout"].rate == 0.35
    assert layers_by_role(tiny())["dropout"].rate == TINY.dropout_rate
    assert {roles[role].activation for role in ("stem", "block_0", "block_4", "head")} == {"relu"}
    assert np.min(tf.keras.Model(model.input, roles["stem"].output)(pixels())) == 0.0


def test_every_parameter_receives_a_gradient():
    model = tiny(dropout_rate=0.0, survival_prob=1.0)
    fill_at_random(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pixels(), training=True) ** 2)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name
        assert np.abs(gradient).max() > 0, variable.name


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_inside_and_gives_float32(dtype):
    half, full = tiny(dtype=dtype), tiny(dtype="float32")
    fill_at_random(full)
    half.set_weights(full.get_weights())
    roles = layers_by_role(half)
    compute = dtype.removeprefix("mixed_")
    assert {tf.as_dtype(roles[role].output.dtype).name for role in ("stem", "block_0", "block_4", "head")} == {compute}
    assert {tf.as_dtype(variable.dtype).name for variable in half.variables} == {"float32"}
    for part in sublayers(half):
        if isinstance(part, (tf.keras.layers.Conv2D, tf.keras.layers.BatchNormalization)):
            assert part.compute_dtype == compute, part.name

    logits = half(pixels())
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, full(pixels()), atol=0.1 * np.abs(full(pixels())).max())
    assert half(pixels(), training=True).dtype == tf.float32
    assert tiny(dtype=dtype, include_top=False, pooling="avg").output.dtype == "float32"
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def gradients_of(model, **settings):
    """A compilable function of images and seed, to the loss and every gradient."""

    def gradients(images, seed):
        with tf.GradientTape() as tape, stochastic_scope(seed, **settings):
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        return [loss, *tape.gradient(loss, model.trainable_variables)]

    return gradients


@pytest.mark.parametrize("dtype", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
def test_a_train_step_compiles_with_xla(dtype):
    model = tiny(input_shape=(24, 24, 3), survival_prob=0.5, dtype=dtype)
    step = tf.function(gradients_of(model, dropout_rate=0.3), jit_compile=True)
    images = tf.constant(pixels(), tf.float32)
    first, again, other = (step(images, tf.constant([1, number])) for number in (2, 2, 3))
    assert all(np.isfinite(gradient).all() for gradient in first)
    assert all(np.array_equal(one, two) for one, two in zip(first, again))
    assert first[0] != other[0]


@pytest.mark.slow
def test_xla_computes_the_same_gradients():
    model = tiny(input_shape=(24, 24, 3), survival_prob=1.0)
    images, step = tf.constant(pixels(), tf.float32), gradients_of(model, dropout_rate=0.0)
    plain, compiled = (tf.function(step, jit_compile=jit)(images, tf.constant([1, 2])) for jit in (False, True))
    for one, other in zip(compiled, plain):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6 + 1e-3 * np.abs(other).max())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0, but must be a whole number of at least 1"),
        ({"survival_prob": 0.0}, r"survival_prob is 0.0, but must be in \(0, 1\]"),
        ({"dropout_rate": 1.0}, r"rate of HeadDropout is 1.0, .* in \[0, 1\)"),
        ({"bn_momentum": 1.0}, r"bn_momentum is 1.0, but must be in \[0, 1\)"),
        ({"bn_epsilon": 0.0}, "bn_epsilon is 0.0, but must be positive"),
        ({"activation": "silo"}, "activation is 'silo'; use the name of one in tf.keras.activations"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; use one of float32, mixed_bfloat16, mixed_float16, or None"),
        ({"input_shape": (32, 32)}, r"input_shape is \(32, 32\), but must be \(height, width, channels\)"),
        ({"input_shape": (None, 0, 3)}, r"input_shape is \(None, 0, 3\)"),
        ({"include_top": False, "pooling": "mean"}, "pooling is 'mean'; use one of avg, max, or None"),
        ({"pooling": "avg"}, "pooling is 'avg', but is only for models without a top"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_model(TINY, **settings)


def test_a_wrong_variant_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'efficientnetv2-s'"):
        build_model("EfficientNetV2S")


def test_imagenet_statistics_need_three_channels():
    with pytest.raises(
        ValueError, match="input_shape has 1 channels, but the preprocessing .* include_preprocessing=Fal"
    ):
        build_model("efficientnetv2-b0", input_shape=(32, 32, 1))
    gray = build_model(TINY, input_shape=(32, 32, 1))
    assert gray(np.zeros([1, 32, 32, 1], np.uint8)).shape == [1, 1000]
