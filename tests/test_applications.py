from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import effnetv2_keras
from effnetv2_keras import build_model, load_weights, preprocess_input
from effnetv2_keras.architecture import variants
from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_compat import IS_KERAS_3, path_of, sublayers
from effnetv2_keras.models.layers import ConvNorm
from effnetv2_keras.weights.registry import NAMES
from tests.models.filling import fill_at_random
from tests.shallow import one_block_a_stage

V2 = [f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")]
V1 = [f"EfficientNetB{size}" for size in range(8)]
ONLY_OURS = ["EfficientNetV2XL", "EfficientNetB8", "EfficientNetL2"]
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD

sides = pytest.mark.parametrize("side", [effnetv2_keras, tf.keras.applications], ids=["ours", "keras"])


@pytest.fixture
def shallow():
    with one_block_a_stage():
        yield


def b0(side, **settings):
    with one_block_a_stage():
        return side.EfficientNetV2B0(weights=None, **settings)


@functools.cache
def backbone(**settings):
    return b0(effnetv2_keras, include_top=False, **settings)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape or [2, 40, 33, 3], dtype=np.uint8)


def parameters(function):
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", [*V2, *V1])
def test_the_signature_begins_with_that_of_keras(name):
    ours, theirs = parameters(getattr(effnetv2_keras, name)), parameters(getattr(tf.keras.applications, name))
    by_name = {"name"} if IS_KERAS_3 else set()  # Keras 3 also accepts it by position, with another default
    theirs = [p for p in theirs if p.kind is not inspect.Parameter.VAR_KEYWORD and p.name not in by_name]
    assert [(p.name, p.default, p.kind) for p in ours if p.kind is POSITIONAL] == [
        (p.name, p.default, p.kind) for p in theirs
    ]
    assert {p.kind for p in ours} == {POSITIONAL, inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("name", "weights"),
    [("EfficientNetV2XL", "imagenet21k-ft1k"), ("EfficientNetL2", "noisy-student"), ("EfficientNetB8", None)],
)
def test_the_default_weights_are_published(name, weights, monkeypatch, caplog):
    """For the variants without ``"imagenet"``; the signature shows the default."""
    function, asked = getattr(effnetv2_keras, name), []

    def find(given, *_):
        asked.append(given)
        raise KeyboardInterrupt  # before the large network is built

    monkeypatch.setattr("effnetv2_keras.applications._find_weights", find)
    for arguments in ((), (True,), (True, "mine.h5")):
        with pytest.raises(KeyboardInterrupt):
            function(*arguments)
    assert asked == [weights, weights, "mine.h5"]
    assert inspect.signature(function).parameters["weights"].default == weights
    assert (
        f"The default\n        is {weights and repr(weights).replace(chr(39), chr(34)).join(['``'] * 2)}"
        in function.__doc__
    )
    assert caplog.text.count("random initial weights, because none are published") == 2 * (weights is None)


@pytest.mark.parametrize("name", [*V2, *V1, *ONLY_OURS])
def test_a_network_documents_every_argument(name):
    function = getattr(effnetv2_keras, name)
    assert function.__name__ == function.__qualname__ == name
    assert function.__doc__.startswith(f"Builds {name} ")
    assert [p.name for p in parameters(function) if f"\n    {p.name}: " not in function.__doc__] == []
    assert "{" not in function.__doc__


def test_every_variant_has_a_function():
    small = {"efficientnetv2-nano", "efficientnetv2-micro"}  # without published weights
    wanted = set(variants.MODELS) - small - {"efficientnet-b3"}  # the other B3 is Keras'
    names = [
        name.replace("efficientnetv2-", "V2").replace("efficientnet-", "").removesuffix("-keras").upper()
        for name in wanted
    ]
    assert sorted(f"EfficientNet{name}" for name in names) == sorted([*V2, *V1, *ONLY_OURS])


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "EfficientNetB0"])
def test_the_default_size_and_output_are_those_of_keras(name):
    ours, theirs = (getattr(side, name)(weights=None) for side in (effnetv2_keras, tf.keras.applications))
    assert ours.input_shape == theirs.input_shape == (None, 224, 224, 3)
    assert ours.output_shape == theirs.output_shape == (None, 1000)
    assert ours.count_params() == theirs.count_params()
    norms = [
        {
            (part.momentum, part.epsilon)
            for part in sublayers(model)
            if isinstance(part, tf.keras.layers.BatchNormalization)
        }
        for model in (ours, theirs)
    ]
    assert norms[0] == norms[1]
    assert theirs.layers[-1].activation is ours.layers[-1].activation is tf.keras.activations.softmax


@pytest.mark.slow
@pytest.mark.parametrize("name", [*V2, *V1])
def test_the_default_size_is_that_of_keras(name):
    ours, theirs = (getattr(side, name)(weights=None) for side in (effnetv2_keras, tf.keras.applications))
    assert (ours.input_shape, ours.output_shape) == (theirs.input_shape, theirs.output_shape)


@pytest.mark.parametrize(
    ("settings", "output_shape"),
    [
        ({"classes": 7, "input_shape": (40, 33, 3), "classifier_activation": None}, (None, 7)),
        ({"classes": 7, "input_shape": [32, 32, 3], "pooling": "max"}, (None, 7)),
        ({"classes": 2, "input_shape": (32, 32, 1), "classifier_activation": "sigmoid", "pooling": "no"}, (None, 2)),
        ({"include_top": False}, (None, None, None, 1280)),
        ({"include_top": False, "input_shape": (None, 40, 3), "classes": 0}, (None, None, 2, 1280)),
        ({"include_top": False, "pooling": "avg", "classifier_activation": "no"}, (None, 1280)),
        ({"include_top": False, "pooling": "max", "include_preprocessing": False}, (None, 1280)),
    ],
)
def test_what_keras_builds_is_built(settings, output_shape):
    ours, theirs = b0(effnetv2_keras, **settings), b0(tf.keras.applications, **settings)
    assert ours.output_shape == theirs.output_shape == output_shape
    assert ours.input_shape == theirs.input_shape
    assert ours.name == theirs.name
    assert len(ours.inputs) == len(theirs.inputs) == 1
    if settings.get("include_top", True):
        assert ours.layers[-1].activation is theirs.layers[-1].activation


def test_positional_arguments_mean_what_they_mean_in_keras(shallow):
    arguments = (False, None, None, (32, 32, 3), "avg", 5, None, False)
    ours, theirs = (side.EfficientNetV2B0(*arguments) for side in (effnetv2_keras, tf.keras.applications))
    assert ours.output_shape == theirs.output_shape == (None, 1280)
    assert not [layer for layer in ours.layers if isinstance(layer, tf.keras.layers.Rescaling)]


@sides
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"weights": "nowhere.h5"}, ValueError),
        ({"weights": 3}, TypeError),
        ({"weights": ["imagenet"]}, TypeError),
        ({"weights": "imagenet", "classes": 5}, ValueError),
        ({"weights": "imagenet", "classifier_activation": "sigmoid"}, ValueError),
        ({"weights": "imagenet", "classifier_activation": "silo"}, ValueError),
        ({"weights": "imagenet", "include_top": False, "input_shape": (32, 32, 1)}, ValueError),
        ({"weights": "imagenet", "input_shape": (224, 224, 1)}, ValueError),
        ({"input_shape": (32, 32)}, ValueError),
        ({"input_shape": 32}, TypeError),
        ({"input_tensor": np.zeros([1, 32, 32, 3]), "include_top": False}, ValueError),
        ({"input_tensor": "image", "include_top": False}, ValueError),
        ({"input_shape": (32, 32, 3), "classes": -1}, ValueError),
        ({"input_shape": (32, 32, 3), "classes": "ten"}, ValueError),
        ({"input_shape": (32, 32, 3), "classifier_activation": "silo"}, ValueError),
        ({"survival": 0.8}, TypeError),
    ],
    ids=str,
)
def test_what_keras_refuses_is_refused_with_its_error(shallow, side, settings, error):
    of_keras_3 = IS_KERAS_3 and side is tf.keras.applications and settings == {"weights": 3}
    with pytest.raises(ValueError if of_keras_3 else error):
        side.EfficientNetV2B0(**{"weights": None, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "nowhere.h5"}, "weights is 'nowhere.h5', but there is no such file. Use one of imagenet, imagen"),
        ({"weights": "imagenet", "classes": 5}, "classes is 5, but the weights 'imagenet' have 1000 classes"),
        ({"weights": "imagenet21k"}, "classes is 1000, but the weights 'imagenet21k' have 21843 classes"),
        (
            {"weights": __file__, "classifier_activation": "relu"},
            "classifier_activation is 'relu', but with weights it must",
        ),
        ({"weights": "imagenet", "input_shape": (9, 9, 4)}, "have 4 channels, but the weights 'imagenet' are for 3"),
        ({"include_top": False, "pooling": "no"}, "pooling is 'no'; use one of avg, max, or None"),
        ({"features_only": True, "pooling": "avg"}, "pooling is 'avg', but features_only=True returns feature maps"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate is 1.0, but must be in \[0, 1\)"),
        ({"dtype": "float16"}, "dtype is 'float16'; use one of float32"),
        (
            {"input_tensor": tf.zeros([1, 9, 9, 3])},
            "input_tensor is of type EagerTensor, but must be a Keras tensor. Pass a tf.ker",
        ),
    ],
)
def test_a_wrong_argument_is_told(settings, message):
    with pytest.raises(ValueError, match=message):
        effnetv2_keras.EfficientNetV2B0(**{"weights": None, **settings})


def test_wrong_weights_are_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr("effnetv2_keras.applications.build_flat", None)
    for settings in ({"weights": "no"}, {"weights": "imagenet", "classes": 3}):
        with pytest.raises(UsageError):
            effnetv2_keras.EfficientNetV2B0(**settings)


@pytest.mark.parametrize("weights", NAMES)
def test_weights_with_a_name_have_their_own_classifier(weights):
    with pytest.raises(UsageError, match=f"the weights {weights!r} have (1000|21843) classes. Pass that number, or"):
        effnetv2_keras.EfficientNetV2B0(weights=weights, classes=10)


def test_an_unknown_size_goes_with_a_top():
    model = b0(effnetv2_keras, input_shape=(None, None, 3), classes=5)
    assert [model(pixels(1, size, size, 3)).shape for size in (20, 33)] == [[1, 5], [1, 5]]
    np.testing.assert_allclose(tf.reduce_sum(model(pixels()), 1), 1, rtol=1e-5)


@sides
def test_a_model_begins_at_a_tensor(side):
    image = tf.keras.Input((None, None, 4), name="four")
    rgb = tf.keras.layers.Conv2D(3, 1, name="to_rgb")(image)
    model = b0(side, include_top=False, input_tensor=rgb, input_shape=(32, 32, 3))
    assert model.input_shape == (None, None, None, 4)
    assert [layer.name for layer in model.layers][:2] == ["four", "to_rgb"]
    assert model(np.zeros([1, 64, 32, 4], np.float32)).shape == [1, 2, 1, 1280]


@sides
def test_a_model_begins_at_two_inputs(side):
    left, right = tf.keras.Input((32, 32, 3)), tf.keras.Input((32, 32, 3))
    model = b0(side, include_top=False, input_tensor=(left + right) / 2)
    assert len(model.inputs) == 2
    assert model([pixels(1, 32, 32, 3), pixels(1, 32, 32, 3)]).shape == [1, 1, 1, 1280]


def test_a_tensor_in_place_of_an_input_changes_nothing_else():
    image = tf.keras.Input((None, None, 3))
    model = b0(effnetv2_keras, include_top=False, input_tensor=image)
    fill_at_random(backbone())
    model.set_weights(backbone().get_weights())
    np.testing.assert_array_equal(model(pixels()), backbone()(pixels()))


def test_one_network_goes_on_where_another_ends():
    first = backbone(name="first")
    joined = tf.keras.layers.Conv2D(3, 1)(first.output)
    settings = {"include_top": False, "input_tensor": joined, "include_preprocessing": False}
    with pytest.raises(
        UsageError, match="names of this network's layers, such as 'stem_conv'. Pass name=, which is then"
    ):
        b0(effnetv2_keras, **settings)
    second = b0(effnetv2_keras, **settings, name="second")
    assert second.input is first.input
    own = [layer.name for layer in second.layers if layer.name.startswith("second_")]
    assert own == [f"second_{layer.name}" for layer in first.layers if layer.name.startswith(("stem", "block", "top"))]
    assert len({path_of(variable) for variable in second.variables}) == len(second.variables)


def test_feature_maps_are_those_of_the_whole_network():
    features = b0(effnetv2_keras, features_only=True, name="features", classes=-1)
    assert features.name == "features"
    assert [shape[1:] for shape in features.compute_output_shape((1, 64, 96, 3))] == [
        (32, 48, 16),
        (16, 24, 32),
        (8, 12, 48),
        (4, 6, 112),
        (2, 3, 192),
    ]
    assert "top_conv" not in [layer.name for layer in features.layers]
    fill_at_random(backbone())
    features.set_weights(backbone().get_weights()[: len(features.get_weights())])
    deepest = tf.keras.Model(backbone().input, backbone().get_layer("block6a_project_bn").output)
    np.testing.assert_array_equal(features(pixels())[-1], deepest(pixels()))


def test_settings_reach_the_network():
    model = b0(
        effnetv2_keras,
        input_shape=(32, 32, 3),
        drop_path_rate=0.42,
        dropout_rate=0.3,
        bn_momentum=0.7,
        bn_epsilon=0.01,
        activation="relu",
        dtype="mixed_bfloat16",
        trainable_from="block_4",
        freeze_bn=True,
    )
    assert model.get_layer("top_dropout").rate == 0.3
    norm = model.get_layer("stem_bn")
    assert (norm.momentum, norm.epsilon) == (0.7, 0.01)
    assert model.get_layer("stem_activation").activation is tf.keras.activations.relu
    assert norm.compute_dtype == "bfloat16"
    trained = {path_of(v).split("/")[0] for v in model.trainable_variables}
    assert {re.match("block..|top|predictions", name)[0] for name in trained} == {
        "block5a",
        "block6a",
        "top",
        "predictions",
    }
    assert not [path_of(v) for v in model.trainable_variables if "gamma" in path_of(v)]


@pytest.mark.parametrize(
    ("name", "drops"), [("EfficientNetV2B0", "drop_path_rate"), ("EfficientNetB0", "drop_connect_rate")]
)
def test_the_drop_path_rate_reaches_the_network(name, drops):
    """V1 of Keras 2 calls it ``drop_connect_rate``. The deepest block of two has half of the rate."""
    spec = variants.MODELS["efficientnetv2-b0" if "V2" in name else "efficientnet-b0"]
    few = dataclasses.replace(spec, blocks=(dataclasses.replace(spec.blocks[0], repeats=2, output_filters=32),))
    with mock.patch.dict(variants.MODELS, {spec.name: few}):
        model = getattr(effnetv2_keras, name)(weights=None, include_top=False, input_shape=(32, 32, 3), **{drops: 0.4})
    assert {layer.name: layer.rate for layer in model.layers if isinstance(layer, tf.keras.layers.Dropout)} == {
        "block1b_drop": pytest.approx(0.2)
    }


@pytest.mark.parametrize(
    "name", ["EfficientNetV2B0", "EfficientNetB0", pytest.param("EfficientNetV2S", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("channels", [3, 1, 4])
def test_preprocess_input_does_what_the_model_does(shallow, name, channels):
    variant = {"EfficientNetV2B0": "efficientnetv2-b0", "EfficientNetB0": "efficientnet-b0"}.get(
        name, "efficientnetv2-s"
    )
    model = getattr(effnetv2_keras, name)(weights=None, include_top=False, input_shape=(None, None, channels))
    if name == "EfficientNetB0":  # its statistics are weights, which are 0 and 1 at first, as in Keras
        load_weights(
            model,
            build_model(variant, include_top=False, include_preprocessing=False, input_shape=(None, None, channels)),
        )
    kinds = (tf.keras.layers.Rescaling, tf.keras.layers.Normalization)
    inside = tf.keras.Model(model.input, [layer for layer in model.layers if isinstance(layer, kinds)][-1].output)
    images = pixels(2, 5, 4, channels)
    np.testing.assert_allclose(preprocess_input(images, variant), inside(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("efficientnetv2-xl", [(0 - 128) / 128, (255 - 128) / 128, (7 - 128) / 128]),
        ("efficientnetv2-b3", [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (7 / 255 - 0.406) / 0.225]),
        ("efficientnet-b7", [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (7 / 255 - 0.406) / 0.225]),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_preprocess_input_normalises_without_changing_its_argument(variant, expected, dtype):
    images = np.full([1, 2, 2, 3], [0, 255, 7], dtype)
    untouched = images.copy()
    for given, kind in ((images, np.ndarray), (images[0].tolist(), np.ndarray), (tf.constant(images), tf.Tensor)):
        output = preprocess_input(given, variant)
        assert isinstance(output, kind)
        assert output.dtype == np.float32
        assert output.shape == np.shape(given)
        np.testing.assert_allclose(np.reshape(output, [-1, 3])[3], expected, rtol=1e-5)
    np.testing.assert_array_equal(images, untouched)


def test_preprocess_input_works_in_datasets_and_in_models():
    dataset = tf.data.Dataset.from_tensors(pixels()).map(lambda x: preprocess_input(x, "efficientnetv2-b0"))
    image = tf.keras.Input((None, None, 3))
    model = tf.keras.Model(image, preprocess_input(image, "efficientnetv2-b0"))
    for output in (next(iter(dataset)), model(pixels())):
        np.testing.assert_allclose(output, preprocess_input(pixels(), "efficientnetv2-b0"), rtol=1e-6, atol=1e-6)


def test_preprocess_input_in_a_graph_prints_no_warning(caplog):
    next(iter(tf.data.Dataset.from_tensors(pixels()).map(lambda x: preprocess_input(x, "efficientnetv2-b0"))))
    tf.function(lambda x: preprocess_input(x, "efficientnetv2-s"))(tf.constant(pixels()))
    assert "AutoGraph" not in caplog.text


@pytest.fixture
def channels_first():
    tf.keras.backend.set_image_data_format("channels_first")
    yield
    tf.keras.backend.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    "build",
    [
        lambda: effnetv2_keras.build_model("efficientnetv2-b0"),
        lambda: ConvNorm(8),  # as load_model builds it
        lambda: build_for(Config(), 2),
        lambda: build_for(Config().override({"model.model_name": "keras:ResNet50"}), 2),
    ],
)
def test_block_layers_refuse_channels_first(build, channels_first):
    with pytest.raises(
        UsageError, match="image_data_format is 'channels_first', but must be 'channels_last': these networks"
    ):
        build()


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "EfficientNetB0"])
def test_channels_first_builds_the_network_of_that_format(name, shallow, channels_first):
    """With Keras 2, Keras cannot build V2 so; TensorFlow cannot run convolutions so on CPUs."""
    settings = {"weights": None, "include_top": False}
    model = getattr(effnetv2_keras, name)(input_shape=(3, 64, 40), **settings)
    assert model.output_shape == (None, 1280, 2, 2)
    assert getattr(effnetv2_keras, name)(pooling="avg", **settings).input_shape == (None, 3, None, None)
    if IS_KERAS_3 or name == "EfficientNetB0":
        theirs = getattr(tf.keras.applications, name)(input_shape=(3, 64, 40), **settings)
        assert [layer.output.shape for layer in model.layers] == [layer.output.shape for layer in theirs.layers]
        assert [weight.shape for weight in model.weights] == [weight.shape for weight in theirs.weights]
    with pytest.raises(UsageError, match=r"input_shape is \(64, 64, 3\), but .* must be \(channels, height, width\)"):
        getattr(effnetv2_keras, name)(input_shape=(64, 64, 3), **settings)


@pytest.mark.parametrize("variant", ["efficientnetv2-b0", "efficientnetv2-s"])
def test_preprocess_input_normalizes_channels_first(variant, channels_first):
    tf.keras.backend.set_image_data_format("channels_last")
    expected = preprocess_input(pixels(), variant)
    tf.keras.backend.set_image_data_format("channels_first")
    np.testing.assert_array_equal(
        preprocess_input(pixels().transpose(0, 3, 1, 2), variant), expected.transpose(0, 3, 1, 2)
    )


def test_preprocess_input_refuses_what_it_does_not_know():
    with pytest.raises(UsageError, match="Unknown model 'efficientnetv2-b7'; did you mean 'efficientnetv2-b"):
        preprocess_input(pixels(), "efficientnetv2-b7")
    with pytest.raises(UsageError, match=r"x has shape \(4, 3\), .*Pass images"):
        preprocess_input(np.zeros([4, 3]), "efficientnetv2-s")


def test_the_package_alone_needs_no_tensorflow():
    code = "import sys, effnetv2_keras; dir(effnetv2_keras); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {*V1, *V2, *ONLY_OURS, "preprocess_input", "decode_predictions", "set_trainable"} <= {*dir(effnetv2_keras)}


@pytest.mark.parametrize("name", ["EfficientNetV2B0", pytest.param("EfficientNetV2S", marks=pytest.mark.slow)])
def test_a_network_in_a_sequential_model_is_fitted_saved_and_loaded(shallow, name, tmp_path):
    base = getattr(effnetv2_keras, name)(include_top=False, weights=None, pooling="avg", input_shape=(40, 33, 3))
    model = tf.keras.Sequential([base, tf.keras.layers.Dense(3)])
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = base.get_weights()
    model.fit(pixels().astype(np.float32), np.array([0, 2]), verbose=0)
    assert sum(not np.array_equal(old, new) for old, new in zip(before, base.get_weights())) > 0.9 * len(before)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels()), model(pixels()))
