"""``fit`` in stages, shown by its effect: what each epoch sees, the share of features dropped, the number of traces.

They also run on the JAX backend, in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import (
    ArraySource,
    FollowStages,
    Ramp,
    Ramps,
    build_model,
    evaluation_dataset,
    plan_stages,
    progressive_dataset,
)
from effnetv2_keras.config import DataConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.training.follow_stages import dropout_layers
from tests.tiny import SMALL

mean, cast = (tf.keras.ops.mean, tf.keras.ops.cast) if IS_KERAS_3 else (tf.reduce_mean, tf.cast)
layers = tf.keras.layers
STEPS, EPOCHS, FEATURES = 2, 4, 400
FIRST_TRACES = 1 if IS_KERAS_3 else 2  # in any fit, Keras 2 traces the first step twice, because it creates variables
DATA = DataConfig(augment="none")


def make_plan(stages=2, dropout=(0.1, 0.5), epochs=EPOCHS, **settings):
    ramps = Ramps(
        image_size=Ramp(8, 12),
        randaug_magnitude=Ramp(0, 0),
        mixup_alpha=Ramp(0, 0),
        cutmix_alpha=Ramp(0, 0),
        dropout_rate=Ramp(*dropout),
    )
    return plan_stages(ramps, num_stages=stages, total_steps=epochs * STEPS, **settings)


def source():
    images = np.random.default_rng(0).integers(0, 256, [16, 14, 14, 3], np.uint8)
    return ArraySource(images, np.arange(16) % 2, ("a", "b"))


def dataset(plan, **settings):
    return progressive_dataset(source(), plan, batch_size=8, data=DATA, **settings)


class Counted(tf.keras.Sequential):
    """Counts how often its train step is traced."""

    traces = 0

    def train_step(self, *arguments):
        self.traces += 1
        return super().train_step(*arguments)


def share_of_zeros(_, outputs):
    return mean(cast(outputs == 0, "float32"), axis=-1) + 0.0 * mean(outputs, axis=-1)


def mean_output(_, outputs):
    return mean(outputs, axis=-1)


def own_model(rate=0.2, dropout=layers.Dropout, **names):
    """A model whose outputs are 1 where no dropout sets them to 0; its last kernel is the identity."""
    return Counted(
        [
            layers.Input([None, None, 3]),
            layers.Conv2D(FEATURES, 1, kernel_initializer="zeros", bias_initializer="ones"),
            layers.GlobalAveragePooling2D(),
            dropout(rate, **names),
            layers.Dense(FEATURES, kernel_initializer="identity"),
        ]
    )


def fit(model, plan, *callbacks, loss=share_of_zeros, data=None, first_epoch=0, epochs=EPOCHS, **settings):
    if getattr(model, "optimizer", None) is None:
        model.compile(tf.keras.optimizers.SGD(0.0), loss)
    data = dataset(plan, steps_per_epoch=STEPS, first_epoch=first_epoch) if data is None else data
    settings = {"steps_per_epoch": STEPS, "initial_epoch": first_epoch, "verbose": 0, **settings}
    return model.fit(data, epochs=epochs, callbacks=[FollowStages(plan), *callbacks], **settings).history


@pytest.mark.parametrize("stages", [2, 4])
def test_fit_drops_the_share_of_features_that_the_stage_says_and_traces_once_for_each_size(stages):
    plan, model = make_plan(stages), own_model()
    dropped = fit(model, plan)["loss"]
    expected = [stage.dropout_rate for stage in plan for _ in range(EPOCHS // stages)]
    np.testing.assert_allclose(dropped, expected, atol=0.03)
    assert model.traces == FIRST_TRACES + stages - 1
    assert fit(model, plan, first_epoch=3)["loss"][0] == pytest.approx(0.5, abs=0.03)
    assert fit(model, plan, epochs=1)["loss"][0] == pytest.approx(0.1, abs=0.03)


def test_fit_sees_the_batches_of_the_plan_in_order_and_resumes_with_equal_ones():
    plan = make_plan(4)
    means = [float(images.numpy().mean()) for images, _ in dataset(plan)]
    expected = np.reshape(means, [EPOCHS, STEPS]).mean(1)
    assert len({round(value, 2) for value in expected}) == EPOCHS

    def model():
        return tf.keras.Sequential(
            [
                layers.Input([None, None, 3]),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.1),
                layers.Dense(3, kernel_initializer="identity"),
            ]
        )

    flat = make_plan(4, dropout=(0, 0))
    np.testing.assert_allclose(fit(model(), flat, loss=mean_output)["loss"], expected, rtol=1e-4)
    later = fit(model(), flat, loss=mean_output, first_epoch=2)["loss"]
    np.testing.assert_allclose(later, expected[2:], rtol=1e-4)


def test_learning_rates_follow_the_stages():
    plan, seen = make_plan(), []
    note = tf.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(float(np.asarray(model.optimizer.learning_rate)))
    )
    model = own_model()
    model.compile(tf.keras.optimizers.SGD(0.1), share_of_zeros)
    follow = FollowStages(plan, learning_rate=lambda stage: stage.image_size / 100)
    model.fit(dataset(plan), steps_per_epoch=STEPS, epochs=EPOCHS, callbacks=[follow, note], verbose=0)
    np.testing.assert_allclose(seen, [0.08, 0.08, 0.12, 0.12], rtol=1e-6)
    follow = FollowStages(plan, learning_rate=[0.3, 0.2], layers=())
    model.fit(dataset(plan), steps_per_epoch=STEPS, epochs=EPOCHS, callbacks=[follow, note], verbose=0)
    np.testing.assert_allclose(seen[4:], [0.3, 0.3, 0.2, 0.2], rtol=1e-6)
    assert model.layers[2].rate == 0.5  # still that of the first call


def test_early_stopping_and_checkpoints_work_as_in_any_fit(tmp_path):
    plan, model = make_plan(), own_model()
    validation = evaluation_dataset(source(), image_size=10, batch_size=8)
    history = fit(
        model,
        plan,
        tf.keras.callbacks.EarlyStopping(patience=1),  # nothing is learned, so val_loss never falls
        tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True),
        validation_data=validation,
    )
    assert len(history["val_loss"]) == 2
    best = tf.keras.models.load_model(tmp_path / "best.keras", compile=False, custom_objects={"Counted": Counted})
    assert best.layers[-2].rate == pytest.approx(0.1)


tensorflow_only = pytest.mark.skipif(
    IS_KERAS_3 and tf.keras.config.backend() != "tensorflow", reason="needs the TensorFlow backend"
)


@tensorflow_only
def test_two_replicas_follow_the_stages(two_replicas):
    plan = make_plan()
    with two_replicas.scope():
        model = own_model()
        model.compile(tf.keras.optimizers.SGD(0.0), share_of_zeros)
    np.testing.assert_allclose(fit(model, plan)["loss"], [0.1, 0.1, 0.5, 0.5], atol=0.03)
    assert model.traces == 2 * (FIRST_TRACES + 1)  # each replica traces


@tensorflow_only
def test_networks_of_this_package_and_of_keras_have_their_dropout_before_the_classifier():
    ours = build_model(SMALL, num_classes=2)
    assert [layer.name for layer in dropout_layers(ours, None)] == ["dropout"]
    keras = tf.keras.applications.EfficientNetB0(weights=None, classes=2)
    assert [layer.name for layer in dropout_layers(keras, None)] == ["top_dropout"]
    nested = tf.keras.Sequential([keras, layers.Dropout(0.1, name="mine"), layers.Dense(2)])
    assert [layer.name for layer in dropout_layers(nested, None)] == ["mine"]


@tensorflow_only
def test_a_network_of_this_package_trains_in_stages():
    plan = make_plan(2, epochs=2)
    model = build_model(SMALL, num_classes=2)
    model.compile(tf.keras.optimizers.SGD(0.01), tf.keras.losses.CategoricalCrossentropy(from_logits=True))
    assert np.isfinite(fit(model, plan, epochs=2)["loss"]).all()
    (layer,) = dropout_layers(model, None)
    assert layer.rate == 0.5


def test_layers_can_be_named_and_others_keep_their_rates():
    plan = make_plan()
    model = Counted(
        [
            layers.Input([None, None, 3]),
            layers.Conv2D(FEATURES, 1, kernel_initializer="zeros", bias_initializer="ones"),
            layers.SpatialDropout2D(0.2, name="spatial"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.0, name="last"),
            layers.Dense(FEATURES, kernel_initializer="identity"),
        ]
    )
    model.compile(tf.keras.optimizers.SGD(0.0), share_of_zeros)
    follow = FollowStages(plan, layers=["spatial"])
    dropped = model.fit(dataset(plan), steps_per_epoch=STEPS, epochs=EPOCHS, callbacks=[follow], verbose=0)
    np.testing.assert_allclose(dropped.history["loss"], [0.1, 0.1, 0.5, 0.5], atol=0.03)
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == [0.5, 0.0]
    for names, message in (
        (["other"], "Layer 'other' does not exist. .* this model has spatial, last"),
        (["last_"], "does not exist"),
        ([model.layers[0].name], "has no rate. Name layers with a dropout rate"),
    ):
        with pytest.raises(UsageError, match=message):
            model.fit(
                dataset(plan), steps_per_epoch=STEPS, epochs=1, callbacks=[FollowStages(plan, layers=names)], verbose=0
            )


@tensorflow_only
def test_a_model_without_input_is_built_first():
    plan = make_plan()
    model = tf.keras.Sequential(own_model().layers)
    assert not model.built or IS_KERAS_3
    np.testing.assert_allclose(fit(model, plan)["loss"], [0.1, 0.1, 0.5, 0.5], atol=0.03)


def test_a_model_without_dropout_trains_with_a_warning(caplog):
    model = tf.keras.Sequential([layers.Input([None, None, 3]), layers.GlobalAveragePooling2D(), layers.Dense(2)])
    with caplog.at_level("WARNING", logger="absl"):
        fit(model, make_plan(), epochs=1, loss=mean_output)
    assert "The model has no Dropout before its classifier" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps_per_epoch": 3}, "Stage 1 ends at step 4, in the middle of an epoch of 3 steps"),
        ({"epochs": 5}, "fit trains 5 epochs of 2 steps, but the plan ends at step 8"),
        ({"steps_per_epoch": None}, "steps_per_epoch|Stage 1 ends at step 4"),
    ],
)
def test_calls_of_fit_that_do_not_fit_the_plan_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        fit(own_model(), make_plan(), **settings)


def test_wrong_arguments_and_models_are_refused():
    plan = make_plan()
    with pytest.raises(UsageError, match="learning_rate has 3 numbers, but the plan has 2 stages"):
        FollowStages(plan, learning_rate=[1, 2, 3])
    with pytest.raises(UsageError, match=r"layers is 'last', but must be a list of names. Pass \['last'\]"):
        FollowStages(plan, layers="last")
    with pytest.raises(UsageError, match="Stage 1 trains only the classifier"):
        FollowStages(make_plan(head_steps=2))
    model = own_model()
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(tf.keras.optimizers.SGD(schedule), share_of_zeros)
    with pytest.raises(UsageError, match="the optimizer has a learning-rate schedule"):
        model.fit(
            dataset(plan), steps_per_epoch=STEPS, epochs=1, verbose=0,
            callbacks=[FollowStages(plan, learning_rate=[0.1, 0.2])],
        )  # fmt: skip


@tensorflow_only  # on JAX, Keras itself refuses these labels before it calls callbacks
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("sparse_categorical_crossentropy", "sparse_categorical_crossentropy"),
        (tf.keras.losses.SparseCategoricalCrossentropy(), "SparseCategoricalCrossentropy"),
    ],
)
def test_a_loss_of_integer_labels_is_refused(loss, name):
    with pytest.raises(UsageError, match=f"The loss is {name}, which takes integer labels"):
        fit(own_model(), make_plan(), loss=loss)


@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 gives every layer random numbers")
def test_dropout_made_with_rate_0_is_refused_in_keras_3():
    with pytest.raises(UsageError, match="was made with rate 0.0, so Keras 3 gave it no random numbers"):
        fit(own_model(rate=0.0), make_plan())


@pytest.mark.skipif(
    not IS_KERAS_3 or importlib.util.find_spec("jax") is None or os.environ.get("KERAS_BACKEND") == "jax",
    reason="needs Keras 3 and jax",
)
def test_all_of_this_on_the_jax_backend():
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
