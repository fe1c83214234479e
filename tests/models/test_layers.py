from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import BatchNorm, devices, initializers, layers
from effnetv2_keras.models.blocks import FusedMBConv, MBConv
from effnetv2_keras.models.depthwise import DepthwiseConv
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.scopes import stochastic_scope


def scope(step=0, replica=0, **settings):
    return stochastic_scope(tf.stack([step, replica]), **settings)


def masks_of(layer, inputs, **settings):
    with scope(**settings):
        return layer(inputs, training=True).numpy()


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    outputs = masks_of(layers.DropPath(0.2), tf.ones([4000, 2, 3, 4]))
    per_sample = outputs[:, 0, 0, 0]
    assert (outputs == per_sample[:, None, None, None]).all()
    assert set(per_sample) == {0.0, 1.25}
    assert (per_sample == 0).mean() == pytest.approx(0.2, abs=0.03)


def test_head_dropout_drops_single_features_and_keeps_the_mean():
    outputs = masks_of(layers.HeadDropout(0.25), tf.ones([100, 80]))
    assert set(outputs.ravel()) == {0.0, np.float32(1 / 0.75)}
    assert (outputs == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert 0 < (outputs[0] == 0).mean() < 1


@pytest.mark.parametrize("layer", [layers.DropPath, layers.HeadDropout])
def test_nothing_is_dropped_at_inference_or_at_rate_zero(layer):
    inputs = tf.random.normal([16, 2, 2, 3])
    assert np.array_equal(layer(0.9)(inputs), inputs)
    assert np.array_equal(layer(0.9)(inputs, training=False), inputs)
    assert np.array_equal(layer(0.0)(inputs, training=True), inputs)


@pytest.mark.parametrize("layer", [layers.DropPath, layers.HeadDropout])
def test_without_a_scope_every_call_drops_something_else(layer):
    layer, inputs = layer(0.5), tf.ones([64, 1])
    assert not np.array_equal(layer(inputs, training=True), layer(inputs, training=True))


def test_the_scope_raises_the_rate_of_a_head_dropout_built_with_zero():
    layer, inputs = layers.HeadDropout(0.0), tf.ones([100, 80])
    assert (masks_of(layer, inputs, dropout_rate=0.4) == 0).mean() == pytest.approx(0.4, abs=0.03)
    assert np.array_equal(masks_of(layer, inputs, dropout_rate=None), inputs)
    assert not layer.variables


def test_the_scope_lowers_the_rate_of_a_head_dropout_to_zero():
    inputs = tf.ones([100, 80])
    assert np.array_equal(masks_of(layers.HeadDropout(0.5), inputs, dropout_rate=0.0), inputs)


def test_the_scope_sets_no_rate_of_drop_path():
    inputs = tf.ones([4000, 1])
    assert (masks_of(layers.DropPath(0.2), inputs, dropout_rate=0.9) == 0).mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_neither_rounds_the_rate_nor_changes_the_type(dtype):
    # Numbers drawn in bfloat16 are multiples of 1/128: a rate of 0.001 would become 1/128.
    inputs = tf.ones([20000, 1], dtype)
    outputs = tf.keras.Sequential([layers.DropPath(0.001, dtype=dtype)])(inputs, training=True)
    assert outputs.dtype == dtype
    assert 0 < np.mean(outputs.numpy() == 0) < 0.003


def test_two_layers_in_one_scope_drop_different_samples():
    first, second = layers.DropPath(0.5), layers.DropPath(0.5)
    with scope():
        assert not np.array_equal(first(tf.ones([64, 1]), training=True), second(tf.ones([64, 1]), training=True))


def test_replicas_drop_different_samples_and_repeat_them_from_step_to_step():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    layer = layers.DropPath(0.5)

    @tf.function
    def step(index):
        def replica():
            with scope(index, tf.distribute.get_replica_context().replica_id_in_sync_group):
                return layer(tf.ones([64, 1]), training=True)

        return strategy.experimental_local_results(strategy.run(replica))

    first, second = (part.numpy() for part in step(tf.constant(7)))
    assert not np.array_equal(first, second)
    assert np.array_equal(step(tf.constant(7)), (first, second))
    assert not np.array_equal(step(tf.constant(8)), (first, second))


@pytest.mark.parametrize("layer", [layers.DropPath, layers.HeadDropout])
@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_is_no_probability_is_refused(layer, rate):
    with pytest.raises(ValueError, match=rf"rate of {layer.__name__} is {rate}, .* in \[0, 1\)"):
        layer(rate)


def test_kernels_start_as_in_the_reference_code():
    tf.keras.utils.set_random_seed(0)
    conv = initializers.conv_initializer()([3, 3, 8, 500]).numpy()
    assert conv.std() == pytest.approx(np.sqrt(2 / (9 * 500)), rel=0.02)
    assert np.abs(conv).max() > 3.5 * conv.std()  # not truncated
    depthwise = initializers.conv_initializer()([3, 3, 5000, 1]).numpy()
    assert depthwise.std() == pytest.approx(np.sqrt(2 / 9), rel=0.02)
    dense = initializers.classifier_initializer(400, "reference")([100, 400]).numpy()
    assert np.abs(dense).max() == pytest.approx(1 / np.sqrt(400), rel=0.01)
    assert dense.std() == pytest.approx(1 / np.sqrt(3 * 400), rel=0.02)


@pytest.mark.parametrize("classes", [2, 10, 1000, 21843])
def test_the_classifier_starts_near_chance_for_any_number_of_classes(classes):
    tf.keras.utils.set_random_seed(0)
    features = np.abs(np.random.default_rng(0).normal(size=[64, 1280])).astype(np.float32)
    logits = features @ initializers.classifier_initializer(classes)([1280, classes]).numpy()
    chance = np.log(np.exp(logits).sum(1)) - logits.mean(1)
    assert chance.mean() == pytest.approx(np.log(classes), abs=0.35)


def test_squeeze_excite_scales_channels_by_a_gate_of_their_means():
    layer = layers.SqueezeExcite(6, 2, activation="relu")
    inputs = tf.random.normal([3, 4, 5, 6])
    outputs = layer(inputs)
    for variable in layer.variables:
        variable.assign(tf.random.normal(variable.shape))
    outputs = layer(inputs)

    reduce, reduce_bias, expand, expand_bias = (variable.numpy() for variable in layer.variables)
    hidden = np.maximum(inputs.numpy().mean((1, 2)) @ reduce[0, 0] + reduce_bias, 0)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    np.testing.assert_allclose(outputs, inputs * gate[:, None, None, :], rtol=1e-5, atol=1e-6)


def test_squeeze_excite_divides_no_gradient_of_the_size_of_the_image():
    """Such a division took a hundredth of a training step, where the size is unknown and cannot become a factor."""
    layer = layers.SqueezeExcite(6, 2)
    layer.build([None, None, None, 6])

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 6])])
    def gradient(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
        return tape.gradient(outputs, inputs)

    divisions = [op for op in gradient.get_concrete_function().graph.get_operations() if op.type == "RealDiv"]
    assert {op.inputs[0].shape[1] for op in divisions} == {1}
    inputs = tf.random.normal([2, 15, 13, 6])
    np.testing.assert_array_equal(layer(inputs, training=True), layer(inputs, training=False))


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("activation", ["silu", "swish", "relu", None])
def test_what_trains_faster_computes_the_same(monkeypatch, activation, on_cpu):
    """The train step's matrix product and silu, against plain Keras: outputs, gradients and moving averages."""
    monkeypatch.setattr(devices, "on_cpu", lambda: on_cpu)
    inputs = tf.random.normal([4, 5, 6, 3])

    def run(layer):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs**3)
        return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_variables]), *layer.non_trainable_variables]

    layer = layers.ConvNorm(7, activation=activation)
    layer(inputs)
    plain = tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(7, 1, use_bias=False),
            BatchNorm(momentum=0.9),
            tf.keras.layers.Activation(activation),
        ]
    )
    plain(inputs)
    plain.set_weights(layer.get_weights())
    for ours, theirs in zip(run(layer), run(plain)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_depthwise_kernel_has_the_same_gradient_on_images_of_any_size(kernel_size, stride, dtype, known):
    options = {"strides": stride, "padding": "same", "use_bias": False}
    ours = DepthwiseConv(kernel_size, dtype=dtype, **options)
    plain = tf.keras.layers.DepthwiseConv2D(kernel_size, **options)  # in bfloat16, TensorFlow 2.15 gives 1e35 at 1 x 1

    @tf.function(reduce_retracing=True)
    def gradients(layer, inputs):
        inputs = inputs if known else tf.ensure_shape(tf.reshape(inputs, tf.shape(inputs) + 0), [4, None, None, 6])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
        return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_variables])]

    for height, width in ((1, 1), (2, 2), (2, 7), (4, 3), (8, 9)):
        inputs = tf.random.normal([4, height, width, 6])
        for layer in (ours, plain):
            layer(inputs)
        plain.set_weights(ours.get_weights())
        for mine, other in zip(gradients(ours, inputs), gradients(plain, inputs)):
            bound = (1e-5 if dtype == "float32" else 0.03) * float(np.abs(other).max())
            np.testing.assert_allclose(np.float32(mine), np.float32(other), rtol=0, atol=bound)


def test_only_a_training_graph_on_a_cpu_differs_from_plain_keras():
    layer = layers.ConvNorm(7, activation="silu")
    layer(tf.zeros([1, 4, 4, 3]))

    def operations(training):
        traced = tf.function(layer).get_concrete_function(tf.TensorSpec([1, 4, 4, 3]), training=training)
        return {operation.type for operation in traced.graph.get_operations()}

    assert "Conv2D" in operations(False)
    assert "MatMul" not in operations(False)
    assert "Conv2D" not in operations(True)
    assert "MatMul" in operations(True)


@pytest.mark.skipif(not IS_KERAS_3, reason="only Keras 3 has compute_output_spec")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (layers.DropPath, {"rate": 0.1}),
        (layers.Dropout, {"rate": 0.1}),
        (layers.HeadDropout, {"rate": 0.1}),
        (layers.Conv, {"filters": 4, "kernel_size": 1}),
        (layers.ConvNorm, {"filters": 4}),
        (layers.SqueezeExcite, {"filters": 4, "squeezed_filters": 2}),
        (BatchNorm, {}),
        (MBConv, {"input_filters": 4, "output_filters": 4}),
        (FusedMBConv, {"input_filters": 4, "output_filters": 4}),
    ],
)
def test_keras_3_knows_the_dtype_of_the_output(layer, arguments, policy):
    spec = layer(**arguments, dtype=policy).compute_output_spec(tf.keras.KerasTensor((None, 8, 8, 4), "float32"))
    assert (spec.dtype, spec.shape) == (policy.removeprefix("mixed_"), (None, 8, 8, 4))
