from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import set_trainable
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model, layers_by_role
from effnetv2_keras.models.keras_compat import path_of
from tests.models.filling import fill_at_random
from tests.tiny import TINY

IMAGES = np.random.default_rng(0).integers(0, 256, [4, 24, 24, 3]).astype(np.float32)
ROLES = ["stem", *(f"block_{index}" for index in range(5)), "head", "classifier"]


def tiny(**settings):
    model = build_model(TINY, num_classes=5, dropout_rate=0.0, survival_prob=1.0, **settings)
    fill_at_random(model)
    return model


def trained(model):
    prefix = model.layers[0].name.removesuffix("image")
    return list(dict.fromkeys(path_of(v).split("/")[0].removeprefix(prefix) for v in model.trainable_variables))


def kinds(model):
    return {path_of(variable).split("/")[-1] for variable in model.trainable_variables}


def changed_by_training(model):
    """The names of the variables that a step of Keras' ``fit`` changes."""
    model.compile(tf.keras.optimizers.SGD(0.1), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [variable.numpy() for variable in model.variables]
    model.fit(IMAGES, np.arange(4), verbose=0)
    return {path_of(v) for v, old in zip(model.variables, before) if not np.array_equal(v, old)}


@pytest.mark.parametrize("first", [*ROLES, "pool"])
@pytest.mark.parametrize("name", [None, "left"])
def test_layers_from_the_first_on_train(first, name):
    model = tiny(name=name)
    set_trainable(model, trainable_from=first)
    assert trained(model) == (["classifier"] if first == "pool" else ROLES[ROLES.index(first) :])


def test_frozen_layers_stay_as_they_are():
    model = tiny()
    set_trainable(model, trainable_from="block_3")
    changed = changed_by_training(model)
    assert {name.split("/")[0] for name in changed} == set(ROLES[ROLES.index("block_3") :])
    assert {name.split("/")[-1] for name in changed} >= {"kernel", "gamma", "moving_mean", "moving_variance"}


def test_frozen_batch_norms_stay_and_run_as_in_inference():
    model = tiny()
    assert not np.allclose(model(IMAGES, training=True), model(IMAGES))
    moved = {path_of(v) for v in model.variables if "norm" in path_of(v)}
    set_trainable(model, freeze_bn=True)
    assert trained(model) == ROLES
    assert kinds(model) == {"kernel", "depthwise_kernel", "bias"}
    np.testing.assert_allclose(model(IMAGES, training=True), model(IMAGES), rtol=1e-4, atol=1e-5)
    assert changed_by_training(model) == {path_of(v) for v in model.variables} - moved


def test_each_call_begins_anew():
    model = tiny()
    everything = [path_of(variable) for variable in model.trainable_variables]
    set_trainable(model, trainable_from="classifier", freeze_bn=True)
    set_trainable(model, trainable_from="block_2")
    assert trained(model) == ROLES[ROLES.index("block_2") :]
    assert "gamma" in kinds(model)
    set_trainable(model)
    assert [path_of(variable) for variable in model.trainable_variables] == everything
    set_trainable(model, freeze_bn=True)
    assert "gamma" not in kinds(model)
    set_trainable(model)
    assert [path_of(variable) for variable in model.trainable_variables] == everything


@pytest.mark.parametrize("settings", [{"trainable_from": "block_2"}, {"freeze_bn": True}])
def test_a_keras_file_and_a_clone_keep_what_is_frozen(settings, tmp_path):
    model = tiny()
    set_trainable(model, **settings)
    model.save(tmp_path / "model.keras")
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    expected = model(IMAGES, training=True).numpy()
    for other in (tf.keras.models.load_model(tmp_path / "model.keras"), clone):
        assert [path_of(v) for v in other.trainable_variables] == [path_of(v) for v in model.trainable_variables]
        kept = [variable.numpy() for variable in other.non_trainable_variables]
        np.testing.assert_allclose(other(IMAGES, training=True), expected, rtol=1e-4, atol=1e-5)
        stays = [np.array_equal(old, new) for old, new in zip(kept, other.non_trainable_variables)]
        assert all(stays) == ("freeze_bn" in settings)
        assert any(stays)


def test_only_the_network_changes():
    image = tf.keras.Input((24, 24, 1))
    before = tf.keras.layers.Conv2D(3, 1, name="before")(image)
    network = build_model(TINY, input_tensor=before, include_top=False, pooling="avg")
    model = tf.keras.Model(image, tf.keras.layers.Dense(2, name="after")(network.output))
    model.get_layer("before").trainable = False
    set_trainable(model, trainable_from="head", freeze_bn=True)
    assert [path_of(v) for v in model.trainable_variables] == ["head/conv/kernel", "after/kernel", "after/bias"]
    set_trainable(model)
    assert not model.get_layer("before").trainable
    assert layers_by_role(model)["stem"].trainable


def test_an_unknown_layer_is_refused_with_the_nearest_and_changes_nothing():
    model = tiny()
    with pytest.raises(
        UsageError, match=r"'block_7', which is not a layer of 'tiny'; did you mean 'block_\d'\? Its layers are"
    ):
        set_trainable(model, trainable_from="block_7")
    assert trained(model) == ROLES


@pytest.mark.parametrize("name", [None, "left"])
@pytest.mark.parametrize(
    ("expression", "layers"),
    [
        ("classifier", ["classifier"]),
        ("block_[13]|stem", ["stem", "block_1", "block_3"]),
        (".*(head|classifier).*", ["head", "classifier"]),
        ("block_1", ["block_1"]),
        (".*", ROLES),
    ],
)
def test_layers_that_match_train(expression, layers, name):
    model = tiny(name=name)
    set_trainable(model, trainable_layers=expression)
    assert trained(model) == layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"trainable_layers": "blocks_1"},
            "'blocks_1', which matches none of the layers: image, preprocessing, stem, ",
        ),
        ({"trainable_layers": "block_("}, "which is not a valid regular expression: missing"),
        ({"trainable_layers": "head", "trainable_from": "stem"}, "'stem' and trainable_layers is 'head'. Set only one"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused(settings, message):
    model = tiny()
    with pytest.raises(UsageError, match=message):
        set_trainable(model, **settings)
    assert trained(model) == ROLES


def test_a_model_frozen_as_a_whole_is_refused():
    model = tiny()
    model.trainable = False
    with pytest.raises(UsageError, match="whole model 'tiny' is frozen. Set model.trainable = True first"):
        set_trainable(model, trainable_from="head")
    model.trainable = True
    set_trainable(model, trainable_from="head")
    assert trained(model) == ["head", "classifier"]


def test_a_foreign_model_is_refused():
    with pytest.raises(ValueError, match="'other' has no layer 'stem'"):
        set_trainable(tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=[2])], name="other"))
