import re

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import profile
from effnetv2_keras.architecture.specs import KerasSpec
from effnetv2_keras.architecture.variants import any_spec, get_spec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import figures, stochastic_scope
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.keras_models import build_keras_model, has_head_dropout
from effnetv2_keras.models.layers import Dropout, DropPath, HeadDropout
from effnetv2_keras.models.naming import layers_by_name, leaf_layers
from effnetv2_keras.models.normalization import BatchNorm
from effnetv2_keras.models.scopes import training_scope
from tests import own_networks
from tests.shallow import one_block_a_stage

OWN = "keras:tests.own_networks:"


def built(name, num_classes=3, **settings):
    return build_keras_model(any_spec(name), num_classes=num_classes, **settings)


def randomize(model):
    random = np.random.default_rng(0)
    model.set_weights([
        weight * random.uniform(0.8, 1.2, weight.shape) + random.normal(0, 0.02, weight.shape)
        if np.issubdtype(weight.dtype, np.floating) else weight
        for weight in model.get_weights()
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size", "rescaled"),
    [
        pytest.param("ResNet50", 64, True, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", 64, False, marks=pytest.mark.slow),
        ("MobileNetV2", 64, True),
    ],
)
def test_networks_of_keras_are_the_same_and_take_images_of_any_size(name, size, rescaled):
    settings = {"classes": 7, "classifier_activation": None, "input_shape": (size, size, 3)}
    with one_block_a_stage():
        original = getattr(tf.keras.applications, name)(weights=None, **settings)
        model = built(f"keras:{name}", 7)
    count = figures.count_parameters(model)
    assert count.trainable == sum(np.prod(weight.shape) for weight in original.trainable_weights)
    constants = [layer for layer in original.layers if isinstance(layer, tf.keras.layers.Normalization)]
    assert count.total == original.count_params() - sum(layer.count_params() for layer in constants)
    randomize(original)
    for old in original.layers:
        if old.weights and old not in constants:
            layers_by_name(model)[old.name].set_weights(old.get_weights())
    pixels = np.random.default_rng(1).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    expected = original((pixels - mean) / deviation if rescaled else _with_mean_of(model, original, pixels))
    logits = model(pixels)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    assert model(pixels[:, :72, :40]).shape == (1, 7)
    assert logits.dtype == tf.float32


def _with_mean_of(model, original, pixels):
    """Gives the original's ``Normalization``, which was randomised, the constants that the other has."""
    layer = next(layer for layer in original.layers if isinstance(layer, tf.keras.layers.Normalization))
    layer.set_weights([np.zeros(3), np.ones(3), np.array(0)])
    layer.finalize_state()
    return pixels


def test_layers_are_replaced_by_those_that_follow_a_run():
    model = built(OWN + "tiny", bn_momentum=0.7)
    layers = layers_by_name(model)
    assert [type(layers[name]) for name in ("body_dropout", "depth", "dropout")] == [Dropout, DropPath, HeadDropout]
    assert [layers[name].rate for name in ("body_dropout", "depth", "dropout")] == [0.05, 0.1, 0.2]
    norms = [layer for layer in layers.values() if isinstance(layer, BatchNorm)]
    assert [(layer.momentum, layer.epsilon, layer.scale) for layer in norms] == [(0.7, 1e-4, False), (0.7, 1e-3, True)]
    assert has_head_dropout(model)
    assert not has_head_dropout(built(OWN + "bare"))
    # Names do not depend on what was built before.
    assert [weight.name for weight in built(OWN + "tiny").weights] == [weight.name for weight in model.weights]


def test_masks_follow_the_seed_and_the_rate_of_the_stage():
    model, images = built(OWN + "tiny"), np.random.default_rng(0).uniform(0, 255, (4, 24, 24, 3))

    def logits(seed, rate):
        with stochastic_scope(tf.constant([seed, 0]), dropout_rate=rate):
            return model(images, training=True).numpy()

    np.testing.assert_array_equal(logits(1, 0.5), logits(1, 0.5))
    assert not np.array_equal(logits(1, 0.5), logits(2, 0.5))
    assert not np.array_equal(logits(1, 0.5), logits(1, 0.1))


def test_a_network_keeps_its_weights_and_its_own_normalisation():
    made = own_networks.bare(3)
    tf.keras.utils.set_random_seed(0)
    model = built(OWN + "bare")
    tf.keras.utils.set_random_seed(0)
    expected = own_networks.bare(3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 20, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(model(images), expected(images), rtol=1e-5, atol=1e-6)
    assert leaf_layers(model)[0].name == "pixels"
    assert len(model.weights) == len(made.trainable_weights)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_in_mixed_precision(dtype):
    layers = layers_by_name(built(OWN + "tiny", dtype=dtype))
    model = built(OWN + "tiny", dtype=dtype)
    assert model.output.dtype == tf.float32
    assert layers["conv2d"].compute_dtype == layers["batch_normalization"].compute_dtype == dtype[6:]
    assert layers["logits"].compute_dtype == layers["preprocessing"].compute_dtype == "float32"
    assert all(weight.dtype == tf.float32 for weight in model.weights)


def test_synchronised_batchnorm_without_scale_and_offset():
    layer, images = BatchNorm(scale=False, center=False), tf.random.stateless_normal([4, 3, 3, 2], [0, 0])
    expected = layer(images, training=True)
    with training_scope(sync_bn=True):
        np.testing.assert_allclose(layer(images, training=True), expected, atol=1e-5)


def test_figures_are_those_of_the_blocks():
    """V1-B0 of Keras is the network that this package builds from its blocks."""
    model, spec = built("keras:EfficientNetB0", 1000), get_spec("efficientnet-b0")
    expected = profile.count_macs(spec, image_size=160)
    assert figures.count_macs(model, image_size=160) == pytest.approx(expected, rel=1e-3)
    assert figures.count_parameters(model) == profile.count_parameters(spec)


def test_figures_of_groups_and_of_what_is_not_counted():
    images = tf.keras.Input((None, None, 4))
    grouped = tf.keras.Model(images, tf.keras.layers.Conv2D(8, 3, groups=2, use_bias=False, padding="same")(images))
    graph = tf.keras.Model(
        image := tf.keras.Input((None, None, 3)), grouped(tf.keras.layers.Conv2D(4, 1, use_bias=False)(image))
    )
    assert figures.count_macs(graph, image_size=10) == 100 * (3 * 4 + 9 * 2 * 8)
    attended = tf.keras.layers.MultiHeadAttention(1, 4)(image, image)
    assert figures.count_macs(tf.keras.Model(image, attended), image_size=4) is None


def test_sizes_of_networks():
    assert any_spec("keras:ResNet50") == KerasSpec("keras:ResNet50", 224, 224, 0.2, "imagenet")
    assert any_spec("keras:EfficientNetB4") == KerasSpec("keras:EfficientNetB4", 304, 380, 0.4)
    assert any_spec("keras:EfficientNetV2S") == KerasSpec("keras:EfficientNetV2S", 300, 384, 0.2)
    assert any_spec("efficientnetv2-s") is get_spec("efficientnetv2-s")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "keras:Reznet50",
            "tf.keras.applications has no model 'Reznet50'; did you mean keras:ResNet50? Its models are Conv",
        ),
        ("keras:preprocess_input", "has no model 'preprocess_input'"),
        ("keras:a.b", "is malformed; write keras:NAME, where NAME is in tf.keras.applications"),
        ("keras:nowhere.at_all:net", "cannot import the module 'nowhere.at_all' (No module named 'nowhere')"),
        (OWN + "missing", "there is no function 'missing' in "),
        (OWN + "number", "there is no function 'number' in "),
        (OWN + "classes_first", "classes_first(classes) cannot be called as classes_first(num_classes=N)"),
        (OWN + "nothing", "returned NoneType, which is not a functional model. Return tf.keras.Model(inputs, outputs)"),
        (OWN + "subclassed", "returned Subclassed, which is not a functional model"),
        (OWN + "two_inputs", "but must have one input of images, (None, None, None, 3)"),
        (OWN + "too_many", "has outputs [(None, 4)], but must have one logit per class, (None, 3)"),
        (OWN + "softmax", "ends with softmax (layer 'dense"),
        (
            OWN + "probabilities",
            "ends with softmax (layer 'softmax" if IS_KERAS_3 else "ends with softmax (layer 'tf.nn.softmax",
        ),
        (
            OWN + "fixed",
            "accepts only images of 16 x 16 px, but the image size changes from stage to stage. Replace Flatten",
        ),
        (OWN + "reshaped", "accepts only images of 16 x 16 px"),
        (OWN + "spatial_dropout", "Layer 'spatial' (SpatialDropout2D) draws random numbers from its own state"),
        (
            OWN + "uniform",
            "/random_uniform/RandomUniform' draws random numbers from its own state, which a",
        ),
        (OWN + "counted", "Some weights are not float32: counter/count int64. All weights must be float32"),
        pytest.param(
            OWN + "seeded",
            "seed_generator_state:0' draws random numbers from its own state, which a resumed run",
            marks=pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 has no SeedGenerator"),
        ),
        (OWN + "of_64_px", "does not accept images of every size, but the image size changes from stage to stage"),
        (OWN + "noisy", "Layer 'noise' (GaussianNoise) draws random numbers from its own state"),
        (OWN + "by_rows", "Dropout 'rows' has the noise_shape (None, 1, 1, 3), but must have none, or (None, 1, 1, 1)"),
        (OWN + "hidden", "BatchNormalization 'hidden' is inside another layer"),
        (OWN + "unsaved", "Layer 'unsaved' (Unsaved) cannot be rebuilt from its get_config"),
        (OWN + "channels_first", "BatchNormalization 'rows' has axis [1], but must have the last axis"),
        (OWN + "regularized", "has regularizers or other losses. Remove them and set train.weight_decay"),
        (
            OWN + "frozen",
            "has frozen layers (backbone). Make them trainable, and set train.trainable_from or train.trainable_layers",
        ),
        (OWN + "compiled", "is compiled. Return it without calling compile"),
    ],
)
def test_messages(name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        built(name)


def test_images_that_are_too_small():
    message = r"from_24_px cannot process images of 23 x 23 px, which are the smallest ones of this run. Increase prog"
    built(OWN + "from_24_px", smallest_size=24)
    with pytest.raises(UsageError, match=message):
        built(OWN + "from_24_px", smallest_size=23)


def test_two_layers_of_one_name():
    with pytest.raises(UsageError, match="'twins' has two layers called 'same'. Give them different names"):
        layers_by_name(built(OWN + "twins", include_preprocessing=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    (
        "MobileNet MobileNetV3Small EfficientNetV2B0 ResNet50V2 DenseNet121 ConvNeXtTiny RegNetX002 ResNetRS50 "
        "NASNetMobile Xception InceptionV3 InceptionResNetV2"
    ).split(),
)
def test_one_network_of_each_family(name):
    if not hasattr(tf.keras.applications, name):
        pytest.skip(f"this Keras has no {name}")
    model = built(f"keras:{name}")
    with stochastic_scope(tf.constant([0, 0]), dropout_rate=0.1), training_scope(sync_bn=True):
        logits = model(np.zeros([2, 96, 128, 3], np.float32), training=True)
    assert logits.shape == (2, 3)
    assert figures.count_macs(model, image_size=128) > 0


def test_vgg_needs_one_size():
    with pytest.raises(UsageError, match="keras:VGG16 accepts only images of 224 x 224 px"):
        built("keras:VGG16")


def test_the_module_of_a_function_is_named_before_it_is_imported(caplog, monkeypatch):
    """The configuration may come from the folder of a run that somebody else made."""

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", refuse)
    caplog.set_level("INFO", logger="absl")
    with pytest.raises(UsageError, match=r"cannot import the module 'their\.code'"):
        built("keras:their.code:net")
    assert "keras:their.code:net: importing the module their.code, which runs its code" in caplog.text
