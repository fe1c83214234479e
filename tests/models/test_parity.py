"""The networks against independent ones: ``tf.keras.applications``, and values computed by the reference code."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.models import build_model, layers_by_role
from effnetv2_keras.models.keras_compat import path_of
from tests.models.filling import fill_at_random, fill_by_hash, uniform_hash

# Network, image size, sum and mean magnitude of the logits, the first five, the largest and where it is.
GOLDEN = [
    ("efficientnetv2-b0", 64, -16.6563, 0.587431, [0.429405, -0.159246, -1.37947, -0.181792, 1.61082], 764, 2.19351),
    ("efficientnetv2-b0", 75, -14.2416, 0.594664, [0.380422, 0.0155983, -1.25159, -0.140611, 1.66578], 14, 2.26953),
    ("efficientnetv2-s", 64, -14.891, 1.7495, [-0.711366, 0.237419, 0.0645358, -2.48488, 3.85364], 847, 7.05433),
    (
        "efficientnet-b0",
        64,
        -1.04705,
        0.0915281,
        [0.00793137, -0.0136245, -0.0761818, -0.0147965, 0.15435],
        746,
        0.345957,
    ),
]


@functools.lru_cache(maxsize=3)
def network(name):
    return build_model(name, include_preprocessing=False)


@pytest.mark.parametrize(("name", "size", "total", "magnitude", "first", "argmax", "largest"), GOLDEN)
def test_logits_are_those_of_the_reference_code(name, size, total, magnitude, first, argmax, largest):
    model = network(name)
    fill_by_hash(model)
    images = 2 * uniform_hash(3 * size * size, 7).reshape(1, size, size, 3) - 1
    logits = model(images.astype(np.float32)).numpy()[0]
    np.testing.assert_allclose(logits.sum(), total, rtol=1e-3)
    np.testing.assert_allclose(np.abs(logits).mean(), magnitude, rtol=1e-3)
    np.testing.assert_allclose(logits[:5], first, rtol=1e-3)
    assert (logits.argmax(), logits.max()) == (argmax, pytest.approx(largest, rel=1e-3))


def keras_names(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Names the Keras layers whose weights make up each of our layers, in the order of our weights."""
    expanded, names, first = specs.expand(spec), {"stem": ("stem_conv", "stem_bn")}, 0
    for stage, end in enumerate(expanded.stage_ends, start=1):
        for index in range(first, end + 1):
            parts = []
            if expanded.blocks[index].expand_ratio != 1:
                parts += ["expand_conv", "expand_bn"]
            if expanded.blocks[index].kind == "mbconv":
                parts += ["dwconv2", "bn", "se_reduce", "se_expand"]
            parts += ["project_conv", "project_bn"]
            prefix = f"block{stage}{chr(ord('a') + index - first)}_"
            names[f"block_{index}"] = tuple(prefix + part for part in parts)
        first = end + 1
    return {**names, "head": ("top_conv", "top_bn"), "classifier": ("predictions",)}


def copy_weights(ours: tf.keras.Model, theirs: tf.keras.Model, spec: ModelSpec) -> None:
    roles, copied = layers_by_role(ours), 0
    for role, names in keras_names(spec).items():
        if role not in roles:
            continue
        targets = [theirs.get_layer(name) for name in names]
        for kind in ("trainable_variables", "non_trainable_variables"):
            variables = [variable for target in targets for variable in getattr(target, kind)]
            values = getattr(roles[role], kind)
            assert len(values) == len(variables)
            for variable, value in zip(variables, values):
                variable.assign(value)
            copied += len(values)
    assert copied == len(ours.weights) == len([v for v in theirs.weights if "normalization" not in path_of(v)])


def assert_equal(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert np.std(theirs) > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def slow(*variants):
    return [pytest.param(variant, marks=pytest.mark.slow) for variant in variants]


def keras_model(variant, **settings):
    return getattr(tf.keras.applications, f"EfficientNetV2{variant.upper()}")(weights=None, **settings)


@pytest.mark.parametrize("variant", ["b0", *slow("s", "b1", "b2", "b3", "m", "l")])
def test_features_are_those_of_keras(variant):
    """Without top and preprocessing, at an even and at an odd size."""
    ours = network(f"efficientnetv2-{variant}")
    ours = tf.keras.Model(ours.input, layers_by_role(ours)["head"].output)
    fill_at_random(ours)
    theirs = keras_model(variant, include_top=False, include_preprocessing=False)
    copy_weights(ours, theirs, variants.MODELS[f"efficientnetv2-{variant}"])
    for height, width in ((64, 64), (75, 33)):
        images = np.random.default_rng(1).uniform(-1, 1, [2, height, width, 3]).astype(np.float32)
        assert_equal(ours(images), theirs(images))


@pytest.mark.parametrize("variant", ["b0", *slow("b1", "b2", "b3", "s", "m", "l")])
def test_logits_are_those_of_keras(variant):
    """With top and preprocessing."""
    ours = build_model(f"efficientnetv2-{variant}")
    fill_at_random(ours, seed=2)
    theirs = keras_model(variant, input_shape=[75, 64, 3], classifier_activation=None)
    copy_weights(ours, theirs, variants.MODELS[f"efficientnetv2-{variant}"])
    pixels = np.random.default_rng(1).integers(0, 256, [2, 75, 64, 3], np.uint8)
    assert_equal(ours(pixels), theirs(pixels))
