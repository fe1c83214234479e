from __future__ import annotations

import typing

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import config
from effnetv2_keras.distribution.replicas import sum_over_replicas
from effnetv2_keras.optim import optimizers, schedules, tf1

SHAPES = ((3, 4), (5,), ())
DECAY = schedules.WeightDecay(0.1, increase=3.0, total_steps=20)


def rising_and_falling(peak=0.1):
    """A learning rate that differs at every step of a hundred."""
    return schedules.WarmupSchedule("cosine", peak, 130, 10, 1.0, 1.0, 0.0)


def standing_still(peak=0.1):
    return schedules.WarmupSchedule("constant", peak, 80, 0, 1.0, 1.0, 0.0)


def random_steps(count, seed=0):
    """Starting values, and the gradients of each step, whose scale runs over six orders of magnitude."""
    random = np.random.default_rng(seed)
    start = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    scales = 10.0 ** random.uniform(-4, 2, size=count)
    return start, [[(scale * random.normal(size=shape)).astype(np.float32) for shape in SHAPES] for scale in scales]


def new_variables(values):
    return [tf.Variable(value, name=f"kernel{index}") for index, value in enumerate(values)]


def new_optimizer(name, variables, weight_decay=DECAY):
    """One whose middle variable does not decay, as built for a run."""
    optimizer = optimizers.make_optimizer(
        name, schedule=rising_and_falling(), weight_decay=weight_decay, not_decayed=variables[1:2]
    )
    optimizer.build(variables)
    return optimizer


def run(optimizer, variables, gradients):
    """Every value that each variable takes."""
    trace = []
    for step in gradients:
        optimizer.apply_gradients(zip(map(tf.constant, step), variables))
        trace.append([variable.numpy() for variable in variables])
    return trace


def run_tf1(make, schedule, start, gradients):
    """The same with an optimizer of TensorFlow 1, in a graph and a session of its own."""
    rates = [float(schedule(step)) for step in range(len(gradients))]
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        rate = v1.placeholder(tf.float32, ())
        variables = [v1.Variable(value) for value in start]
        feeds = [v1.placeholder(tf.float32, value.shape) for value in start]
        train = make(rate).apply_gradients(list(zip(feeds, variables)))
        session.run(v1.global_variables_initializer())
        trace = []
        for value, step in zip(rates, gradients):
            session.run(train, {rate: value, **dict(zip(feeds, step))})
            trace.append(session.run(variables))
        return trace


TENSORFLOW_1 = {
    "rmsprop": lambda rate: tf.compat.v1.train.RMSPropOptimizer(rate, 0.9, 0.9, 1e-3),
    "momentum": lambda rate: tf.compat.v1.train.MomentumOptimizer(rate, 0.9),
    "sgd": tf.compat.v1.train.GradientDescentOptimizer,
    "adam": tf.compat.v1.train.AdamOptimizer,
}


@pytest.mark.parametrize("name", sorted(optimizers.DECOUPLED))
def test_only_the_variables_that_are_not_exempt_decay(name):
    """Without a gradient, weight decay alone moves a variable."""
    start, _ = random_steps(1)
    variables = new_variables(start)
    optimizer = optimizers.make_optimizer(
        name, schedule=standing_still(), weight_decay=DECAY, not_decayed=variables[1:2]
    )
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
    moved = [not np.array_equal(variable, value) for variable, value in zip(variables, start)]
    assert moved == [True, False, True]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(optimizers.COUPLED))
def test_same_as_tensorflow_1(name, seed):
    start, gradients = random_steps(100, seed)
    schedule = rising_and_falling()
    ours = run(optimizers.make_optimizer(name, schedule=schedule), new_variables(start), gradients)
    theirs = run_tf1(TENSORFLOW_1[name], schedule, start, gradients)
    for step, (mine, other) in enumerate(zip(ours, theirs)):
        for a, b in zip(mine, other):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=f"{name}, step {step}")
    assert np.abs(ours[-1][0] - start[0]).max() > 0.1


def test_momentum_is_not_that_of_keras():
    """Guards the comparison above: where the learning rate moves, its place matters."""
    start, gradients = random_steps(20)
    schedule = rising_and_falling()
    ours = run(optimizers.make_optimizer("momentum", schedule=schedule), new_variables(start), gradients)
    keras = run(tf.keras.optimizers.SGD(schedule, momentum=0.9), new_variables(start), gradients)
    assert np.abs(ours[-1][0] - keras[-1][0]).max() > 0.1


def test_rmsprop_by_hand():
    optimizer = tf1.RMSpropTF1(0.5, rho=0.8, momentum=0.7, epsilon=0.1)
    variable = tf.Variable([1.0])
    ms, mom, weight = 1.0, 0.0, 1.0
    for rate, gradient in ((0.5, 2.0), (0.25, -3.0)):
        optimizer.learning_rate = rate
        optimizer.apply_gradients([(tf.constant([gradient]), variable)])
        ms = 0.8 * ms + 0.2 * gradient**2
        mom = 0.7 * mom + rate * gradient / (ms + 0.1) ** 0.5
        weight -= mom
        assert float(variable[0]) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_weight_decay_is_decoupled_or_else_ignored(name):
    values = []
    for weight_decay in (None, schedules.WeightDecay(0.5)):
        variable = tf.Variable([1.0, 2.0], name="kernel")
        optimizer = optimizers.make_optimizer(name, schedule=standing_still(), weight_decay=weight_decay)
        optimizer.apply_gradients([(tf.constant([1.0, -1.0]), variable)])
        values.append(variable.numpy().tolist())
    assert (values[0] != values[1]) is optimizers.uses_decoupled_weight_decay(name)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_restored_equals_uninterrupted_bit_for_bit(name, tmp_path):
    start, gradients = random_steps(20)

    def new():
        variables = new_variables(start)
        optimizer = new_optimizer(name, variables)
        return optimizer, variables, tf.train.Checkpoint(optimizer=optimizer, variables=variables)

    optimizer, variables, checkpoint = new()
    uninterrupted = run(optimizer, variables, gradients[:12])
    path = checkpoint.save(str(tmp_path / "ckpt"))
    uninterrupted += run(optimizer, variables, gradients[12:])

    optimizer, variables, checkpoint = new()
    checkpoint.restore(path).assert_consumed()
    assert optimizer.iterations.numpy() == 12
    for mine, other in zip(run(optimizer, variables, gradients[12:]), uninterrupted[12:]):
        for a, b in zip(mine, other):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_two_replicas_equal_one(name, two_replicas):
    start, gradients = random_steps(10)

    def train(strategy):
        with strategy.scope():
            variables = new_variables(start)
            optimizer = new_optimizer(name, variables)

        @tf.function
        def step(parts):
            def replica(part):
                optimizer.apply_gradients(zip(sum_over_replicas(part), variables))

            strategy.run(replica, args=(parts,))

        count = strategy.num_replicas_in_sync
        for whole in gradients:
            # Unequal shares of the gradient.
            shares = [1.0] if count == 1 else [1.75, -0.75]
            step(
                strategy.experimental_distribute_values_from_function(
                    lambda context, whole=whole, shares=shares: [
                        tf.constant(shares[context.replica_id_in_sync_group] * value, tf.float32) for value in whole
                    ]
                )
            )
        assert optimizer.iterations.numpy() == len(gradients)
        for variable in variables:
            copies = [copy.numpy() for copy in strategy.experimental_local_results(variable)]
            assert len(copies) == count
            np.testing.assert_array_equal(copies[0], copies[-1])
        return [variable.numpy() for variable in variables]

    one = train(tf.distribute.OneDeviceStrategy("/CPU:0"))
    two = train(two_replicas)
    variables = new_variables(start)
    plain = run(new_optimizer(name, variables), variables, gradients)[-1]
    for a, b, c in zip(one, two, plain):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(a, c, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_compiles_with_xla(name):
    start, gradients = random_steps(5)
    variables = new_variables(start)
    expected = run(new_optimizer(name, variables), variables, gradients)
    variables = new_variables(start)
    optimizer = new_optimizer(name, variables)

    @tf.function(jit_compile=True)
    def step(values):
        optimizer.apply_gradients(zip(values, variables))

    for values in gradients:
        step([tf.constant(value) for value in values])
    for variable, value in zip(variables, expected[-1]):
        np.testing.assert_allclose(variable, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_weights_of_a_mixed_precision_model(policy):
    layer = tf.keras.layers.Dense(2, kernel_initializer="ones", dtype=policy)
    layer.build((None, 3))
    optimizer = optimizers.make_optimizer("rmsprop", schedule=standing_still())
    optimizer.apply_gradients([(tf.ones((3, 2)), layer.kernel), (tf.zeros(2), layer.bias)])
    assert layer.kernel.dtype == tf.float32
    np.testing.assert_allclose(layer.kernel, np.full((3, 2), 1 - 0.1 / np.sqrt(1.001)), rtol=1e-6)


def test_a_variable_that_was_not_announced_is_refused():
    known, unknown = tf.Variable([1.0]), tf.Variable([1.0, 2.0], name="kernel")
    optimizer = optimizers.make_optimizer("adam", schedule=0.1)
    optimizer.build([known])
    with pytest.raises(KeyError, match=r"variable kernel:0 of shape \(2,\) is unknown .* Pass all variables to build"):
        optimizer.apply_gradients([(tf.ones([2]), unknown)])


def test_outside_a_replica_it_is_refused(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([1.0])
        optimizer = optimizers.make_optimizer("adam", schedule=0.1)
        with pytest.raises(RuntimeError, match="cross-replica context. Call it inside strategy.run"):
            optimizer.apply_gradients([(tf.ones([1]), variable)])


def test_a_variable_without_a_gradient_stays():
    variables = new_variables(random_steps(1)[0])
    start = variables[0].numpy()
    optimizer = new_optimizer("adamw", variables)
    for _ in range(2):  # the first has a learning rate of zero
        optimizer.apply_gradients([(None, variables[0]), (tf.ones([5]), variables[1])])
    np.testing.assert_array_equal(variables[0], start)
    assert optimizer.iterations.numpy() == 2


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_a_checkpoint_names_its_parts_as_keras_2_did(name, tmp_path):
    """Iterations, then slots in the order of Keras' optimizers, whatever the names of the attributes are."""
    variables = new_variables(random_steps(1)[0])
    optimizer = new_optimizer(name, variables)
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "ckpt"))
    found = {key.split("/.A")[0]: shape for key, shape in tf.train.list_variables(path) if key.startswith("optimizer")}
    shapes = [list(shape) for shape in SHAPES]
    slots = {"rmsprop": shapes * 2, "momentum": shapes, "sgd": []}.get(name, [s for s in shapes for _ in range(2)])
    expected = {f"optimizer/_variables/{number}": shape for number, shape in enumerate(slots, 1)}
    assert found == {"optimizer/_iterations": [], **expected}


def test_every_name_of_the_configuration_exists():
    field = config.TrainConfig.model_fields["optimizer"]
    assert set(optimizers.OPTIMIZERS) == set(typing.get_args(field.annotation))


def test_unknown_name():
    with pytest.raises(
        ValueError, match="Unknown optimizer 'lars'; use one of: rmsprop, momentum, sgd, adam, adamw, lamb"
    ):
        optimizers.make_optimizer("lars", schedule=standing_still())
