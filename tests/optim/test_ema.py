from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.distribution.replicas import mean_over_replicas, sum_over_replicas
from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.optim import ema
from effnetv2_keras.optim.optimizers import make_optimizer

STEPS = 6
LIMIT = 0.3  # reached at the third step


@pytest.fixture(params=["default", "one device", "two replicas"])
def strategy(request):
    if request.param == "two replicas":
        return request.getfixturevalue("two_replicas")
    return tf.distribute.get_strategy() if request.param == "default" else tf.distribute.OneDeviceStrategy("/CPU:0")


def small_model(policy):
    tf.keras.utils.set_random_seed(7)
    return tf.keras.Sequential([
        tf.keras.Input((6, 6, 2)),
        tf.keras.layers.Conv2D(3, 3, use_bias=False, dtype=policy, name="conv"),
        tf.keras.layers.BatchNormalization(momentum=0.5, dtype=policy, name="norm"),
        tf.keras.layers.GlobalAveragePooling2D(dtype=policy, name="pool"),
        tf.keras.layers.Dense(2, dtype=policy, name="dense"),
    ], name="network")  # fmt: skip


def train(strategy, policy="float32"):
    """Trains on random images; gives the weights of the model and of its average at the start and after each step."""
    with strategy.scope():
        model, average = small_model(policy), small_model(policy)
        optimizer = make_optimizer("sgd", schedule=0.3)
        optimizer.build(model.trainable_variables)

    statistics = tf_variables(weight for weight in model.weights if "moving" in weight.name)
    variables = tf_variables(model.trainable_variables)

    @tf.function
    def step(images):
        def replica(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(tf.cast(model(images, training=True), tf.float32) - 1.0))
            gradients = sum_over_replicas(tape.gradient(loss, variables))
            optimizer.apply_gradients(zip(gradients, variables))
            mean_over_replicas(statistics)

        strategy.run(replica, args=(images,))
        ema.update_ema(
            strategy,
            source=tf_variables(model.weights),
            average=tf_variables(average.weights),
            decay=ema.ema_decay_at(optimizer.iterations, LIMIT),
        )

    random = np.random.default_rng(0)
    trace = [(snapshot(model), snapshot(average))]
    for _ in range(STEPS):
        # Each replica has images of another mean and spread, so that their BatchNorm statistics differ.
        images = [random.normal(0.0, 1.0, (4, 6, 6, 2)), random.normal(2.0, 3.0, (4, 6, 6, 2))]
        step(
            strategy.experimental_distribute_values_from_function(
                lambda context, images=images: tf.constant(images[context.replica_id_in_sync_group], tf.float32)
            )
        )
        trace.append((snapshot(model), snapshot(average)))
    return model, average, trace


def snapshot(model):
    return [weight.read_value().numpy() for weight in tf_variables(model.weights)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_closed_form(strategy, policy):
    model, _, trace = train(strategy, policy)
    names = [weight.name for weight in tf_variables(model.weights)]
    assert len(names) == 7
    expected, before = trace[0][0], trace[0][0]
    for count in range(1, STEPS + 1):
        decay = min(LIMIT, (1 + count) / (10 + count))
        weights, averages = trace[count]
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights)]
        for name, mine, value, new, old in zip(names, averages, expected, weights, before):
            np.testing.assert_allclose(mine, value, rtol=1e-5, atol=1e-6, err_msg=name)
            assert np.abs(new - old).max() > 1e-4, f"{name} did not move in step {count}"
        before = weights


def test_statistics_and_their_average_are_the_same_on_all_replicas(two_replicas):
    models = train(two_replicas)[:2]
    for weight in (weight for model in models for weight in tf_variables(model.weights)):
        copies = [copy.numpy() for copy in two_replicas.experimental_local_results(weight)]
        np.testing.assert_array_equal(copies[0], copies[1], err_msg=weight.name)


def test_statistics_are_the_mean_over_the_replicas(two_replicas):
    with two_replicas.scope():
        statistic = tf.Variable(0.0, trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
                                aggregation=tf.VariableAggregation.MEAN)  # fmt: skip

    @tf.function
    def step():
        def replica():
            statistic.assign(tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32) * 3.0)
            mean_over_replicas([statistic])

        two_replicas.run(replica)

    step()
    assert [copy.numpy() for copy in two_replicas.experimental_local_results(statistic)] == [1.5, 1.5]


def test_compiles_with_xla():
    source = [tf.Variable([2.0, 4.0], name="kernel")]
    average = [tf.Variable([1.0, 1.0], name="kernel")]

    @tf.function(jit_compile=True)
    def step():
        decay = tf.constant(0.75, tf.float64)
        ema.update_ema(tf.distribute.get_strategy(), source=source, average=average, decay=decay)

    step()
    assert average[0].numpy().tolist() == [1.25, 1.75]
    assert source[0].numpy().tolist() == [2.0, 4.0]


def test_decay_of_the_first_steps():
    assert float(ema.ema_decay_at(1, 0.9999)) == 2 / 11
    assert float(ema.ema_decay_at(tf.Variable(90, dtype=tf.int64), 0.9999)) == pytest.approx(0.91)
    assert float(ema.ema_decay_at(10**6, 0.9999)) == 0.9999


def test_same_as_tensorflow_1():
    """The class that the reference code uses; its step counter counts the step just taken."""
    random = np.random.default_rng(1)
    values = random.normal(size=(101, 3)).astype(np.float32)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        feed, count = v1.placeholder(tf.float32, 3), v1.placeholder(tf.float32, ())
        variable = v1.get_variable("kernel", initializer=values[0])
        assign = variable.assign(feed)
        tf1_average = v1.train.ExponentialMovingAverage(0.9, num_updates=count)  # reached at the eightieth step
        update = tf1_average.apply([variable])
        session.run(v1.global_variables_initializer())
        theirs = []
        for step in range(1, 101):
            session.run(assign, {feed: values[step]})
            session.run(update, {count: step})
            theirs.append(session.run(tf1_average.average(variable)))
    source, average = (tf.Variable(values[0], name="kernel") for _ in range(2))
    for step in range(1, 101):
        source.assign(values[step])
        decay = ema.ema_decay_at(step, 0.9)
        ema.update_ema(tf.distribute.get_strategy(), source=[source], average=[average], decay=decay)
        np.testing.assert_allclose(average, theirs[step - 1], rtol=1e-6, atol=1e-6)


@given(step=st.integers(1, 10**7), decay=st.floats(0, 0.99999))
@settings(deadline=None)
def test_decay_grows_to_its_limit(step, decay):
    now, then = float(ema.ema_decay_at(step, decay)), float(ema.ema_decay_at(step + 1, decay))
    assert 0.0 <= now <= then <= decay


@pytest.mark.parametrize(
    ("source", "average", "message"),
    [
        ([("kernel", 2, "float32"), ("bias", 3, "float32")], [("kernel", 2, "float32")], "has 2 weights, but .* has 1"),
        (
            [("kernel", 2, "float32")],
            [("kernel", 3, "float32")],
            r"Cannot average kernel:0 \(2,\) .* in kernel:0 \(3,\)",
        ),
        ([("kernel", 2, "float32")], [("bias", 2, "float32")], "Cannot average kernel:0 .* in bias:0"),
        ([("kernel", 2, "int32")], [("kernel", 2, "int32")], "int32.* dtype must be float32"),
    ],
)
def test_two_architectures(source, average, message):
    source, average = (
        [tf.Variable(tf.zeros(size, dtype), name=name) for name, size, dtype in rows] for rows in (source, average)
    )
    decay = tf.constant(0.5, tf.float64)
    with pytest.raises(ValueError, match=message):
        ema.update_ema(tf.distribute.get_strategy(), source=source, average=average, decay=decay)
