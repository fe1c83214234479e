from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.config import TrainConfig
from effnetv2_keras.optim import losses


def loss_and_gradient(labels, logits, label_smoothing):
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.softmax_cross_entropy(labels, logits, label_smoothing=label_smoothing)
    return loss.numpy(), tape.gradient(loss, logits).numpy()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_same_as_keras(label_smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 5)).astype(np.float32) * 4
    labels = random.dirichlet(np.ones(5), size=6).astype(np.float32)
    loss, gradient = loss_and_gradient(labels, logits, label_smoothing)
    keras = tf.keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=label_smoothing, reduction=tf.keras.losses.Reduction.NONE
    )
    variable = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        expected = keras(labels, variable)
    assert loss.dtype == np.float32
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(expected, variable), atol=1e-6)


def test_a_row_of_zeros_has_no_loss_and_no_gradient():
    labels = tf.constant([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    loss, gradient = loss_and_gradient(labels, [[3.0, -2.0, 1.0]] * 2, 0.1)
    assert loss[0] == 0.0
    assert loss[1] > 1.0
    assert gradient[0].tolist() == [0.0, 0.0, 0.0]
    assert np.abs(gradient[1]).min() > 0.01


def test_large_logits_stay_finite():
    loss, gradient = loss_and_gradient(tf.constant([[1.0, 0.0]]), [[-1e4, 1e4]], 0.1)
    assert loss[0] == pytest.approx(0.95 * 2e4)
    assert gradient[0].tolist() == pytest.approx([-0.95, 0.95])


def test_half_precision_labels_are_taken():
    labels = tf.constant([[0.25, 0.75]], tf.bfloat16)
    loss = losses.softmax_cross_entropy(labels, tf.constant([[0.0, 0.0]]), label_smoothing=0.1)
    assert loss.dtype == tf.float32
    assert float(loss[0]) == pytest.approx(np.log(2.0))


@given(seed=st.integers(0, 2**16), classes=st.integers(2, 30), label_smoothing=st.floats(0, 0.9), mass=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_smoothing_keeps_the_sum_of_the_labels(seed, classes, label_smoothing, mass):
    # The gradient is softmax * sum(smoothed) - smoothed. Adding it up over the classes says nothing (it is 0), but with
    # equal logits it shows the smoothed labels: smoothed = mass / classes - gradient.
    labels = mass * np.random.default_rng(seed).dirichlet(np.ones(classes), size=1).astype(np.float32)
    loss, gradient = loss_and_gradient(labels, np.zeros((1, classes)), label_smoothing)
    assert loss[0] == pytest.approx(mass * np.log(classes), abs=1e-5)
    smoothed = mass / classes - gradient
    assert smoothed.sum() == pytest.approx(mass, abs=1e-5)
    np.testing.assert_allclose(smoothed, labels * (1 - label_smoothing) + mass * label_smoothing / classes, atol=1e-6)
    assert smoothed.min() >= mass * label_smoothing / classes - 1e-6


def test_l2_penalty_and_its_gradient():
    variables = [tf.Variable([[1.0, -2.0]]), tf.Variable([3.0])]
    with tf.GradientTape() as tape:
        penalty = losses.l2_penalty(variables)
    assert penalty.dtype == tf.float32
    assert float(penalty) == 7.0
    assert [gradient.numpy().tolist() for gradient in tape.gradient(penalty, variables)] == [[[1.0, -2.0]], [3.0]]


def test_l2_penalty_of_nothing_is_zero():
    assert float(losses.l2_penalty([])) == 0.0


def random_labels(count=6, classes=5):
    random = np.random.default_rng(1)
    labels = (random.random((count, classes)) < 0.4).astype(np.float32)
    labels[0] = 0
    return labels, (random.normal(size=(count, classes)) * 4).astype(np.float32)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_sigmoid_is_keras_binary_cross_entropy(label_smoothing):
    labels, logits = random_labels()
    keras = tf.keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=label_smoothing, reduction=tf.keras.losses.Reduction.NONE
    )
    loss = losses.sigmoid_cross_entropy(labels, tf.constant(logits), label_smoothing=label_smoothing)
    np.testing.assert_allclose(loss, keras(labels, logits), rtol=1e-5)
    if not label_smoothing:
        summed = losses.summed_sigmoid_cross_entropy(labels, tf.constant(logits), label_smoothing=0.0)
        np.testing.assert_allclose(summed, 5 * loss, rtol=1e-5)


def test_labels_are_shared_by_an_image():
    labels, _ = random_labels()
    shared = losses.sharing(tf.constant(labels)).numpy()
    np.testing.assert_allclose(shared.sum(1), labels.any(1), rtol=1e-6)
    assert ((shared > 0) == (labels > 0)).all()


def test_every_loss_has_a_name():
    assert set(losses.LOSSES) == set(TrainConfig.model_fields["loss_type"].annotation.__args__)


@pytest.mark.parametrize("loss_type", list(losses.LOSSES))
def test_a_loss_by_its_name_takes_several_labels(loss_type):
    labels, logits = random_labels()
    found = losses.loss_of_each(loss_type, labels, tf.constant(logits)).numpy()
    target = labels / np.maximum(labels.sum(1, keepdims=True), 1) if loss_type in ("softmax", "focal") else labels
    np.testing.assert_allclose(found, losses.LOSSES[loss_type](target, tf.constant(logits), label_smoothing=0.0))
    smoothed = losses.loss_of_each(loss_type, labels, tf.constant(logits), label_smoothing=0.2).numpy()
    assert np.allclose(found, smoothed) == (loss_type == "custom")


def test_softmax_is_ranked_by_its_probability():
    logits = np.random.default_rng(2).normal(size=(50, 5)).astype(np.float32) * 4
    shifted = losses.score("softmax", tf.constant(logits + np.arange(50, dtype=np.float32)[:, None] / 4)).numpy()
    exact = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    np.testing.assert_allclose(shifted, np.log(exact / (1 - exact)), rtol=1e-4, atol=1e-3)
    assert np.isfinite(losses.score("softmax", tf.constant([[1e4, -1e4, 0.0]])).numpy()).all()
    for loss_type in ("sigmoid", "custom"):
        np.testing.assert_array_equal(losses.score(loss_type, tf.constant(logits)), logits)


def test_probabilities_follow_from_the_loss():
    logits = tf.constant([[2.0, 1.0, -3.0]])
    np.testing.assert_allclose(losses.probabilities("softmax", logits), tf.nn.softmax(logits))
    for loss_type in ("sigmoid", "custom"):
        np.testing.assert_allclose(losses.probabilities(loss_type, logits), tf.sigmoid(logits))
    found = {loss_type: losses.activation(loss_type) for loss_type in losses.LOSSES}
    sigmoid = dict.fromkeys(("sigmoid", "custom", "sigmoid_focal"), "sigmoid")
    assert found == {**sigmoid, "softmax": "softmax", "focal": "softmax"}


GAMMAS = (0.0, 0.5, 2.0)


def focal_reference(labels, logits, gamma, smoothing, kind):
    """Returns the focal loss in float64: the mean of the losses of the labels 0 and 1, or of the classes."""
    labels, logits = labels.astype(np.float64), logits.astype(np.float64)
    if kind == "sigmoid":
        p, y = 1 / (1 + np.exp(-logits)), labels * (1 - smoothing) + smoothing / 2
        return -np.mean(y * (1 - p) ** gamma * np.log(p) + (1 - y) * p**gamma * np.log(1 - p), axis=-1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    y = labels * (1 - smoothing) + labels.sum(-1, keepdims=True) * smoothing / labels.shape[-1]
    return -np.sum(y * (1 - p) ** gamma * np.log(p), axis=-1)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_focal_losses_are_those_of_the_paper_and_their_mean_for_soft_labels(kind):
    random, name = np.random.default_rng(3), {"softmax": "focal", "sigmoid": "sigmoid_focal"}[kind]
    logits = (random.normal(size=(8, 5)) * 3).astype(np.float32)
    hard = np.eye(5, dtype=np.float32)[random.integers(0, 5, 8)]
    soft = random.dirichlet(np.ones(5), size=8).astype(np.float32)
    p_of_label = {"softmax": tf.nn.softmax(logits).numpy(), "sigmoid": None}[kind]
    for labels in (hard, soft):
        for gamma in GAMMAS:
            for smoothing in (0.0, 0.1):
                found = losses.loss_of_each(
                    name, labels, tf.constant(logits), label_smoothing=smoothing, focal_gamma=gamma
                )
                assert found.dtype == tf.float32
                np.testing.assert_allclose(found, focal_reference(labels, logits, gamma, smoothing, kind), rtol=2e-5)
                if not gamma:
                    plain = losses.loss_of_each(kind, labels, tf.constant(logits), label_smoothing=smoothing)
                    np.testing.assert_allclose(found, plain, rtol=2e-6)
    if kind == "softmax":  # equation 4 as it is printed
        p = (p_of_label * hard).sum(-1)
        found = losses.loss_of_each(name, hard, tf.constant(logits), focal_gamma=2.0)
        np.testing.assert_allclose(found, -((1 - p) ** 2) * np.log(p), rtol=1e-4)


def test_focal_losses_are_those_of_keras_where_keras_does_not_clip():
    random = np.random.default_rng(4)
    logits, soft = random.normal(size=(6, 4)).astype(np.float32), random.dirichlet(np.ones(4), 6).astype(np.float32)
    keras = tf.keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=2.0, from_logits=True, label_smoothing=0.1, reduction="none"
    )
    found = losses.softmax_focal_loss(soft, tf.constant(logits), label_smoothing=0.1, focal_gamma=2.0)
    np.testing.assert_allclose(found, keras(soft, logits), rtol=1e-4)


@pytest.mark.parametrize("loss_type", ["focal", "sigmoid_focal"])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_of_a_focal_loss_is_finite_and_right_at_extreme_logits(loss_type, gamma):
    logits = tf.constant([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [40.0, -40.0, 0.0], [0.0, 0.0, 0.0], [20.0, 0.0, 1.0]])
    labels = tf.constant([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0.7, 0.3, 0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.loss_of_each(loss_type, labels, logits, label_smoothing=0.1, focal_gamma=gamma)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()
    assert gradient[1, 0] < -0.1  # a wrong image still pulls: Keras' clipped loss has no gradient here
    easy = tf.constant([[3.0, -3.0, -3.0]])
    hard = tf.constant([[-3.0, 3.0, -3.0]])
    ratio = [
        losses.loss_of_each(loss_type, labels[:1], rows, focal_gamma=gamma)[0]
        / losses.loss_of_each(loss_type, labels[:1], rows)[0]
        for rows in (easy, hard)
    ]
    assert ratio[0] < 0.6 * ratio[1] or not gamma


def test_the_mean_weight_of_labels_counts_each_by_its_share():
    labels = tf.constant([[1.0, 0, 0], [0.25, 0.75, 0], [0.3, 0, 0], [0, 0, 0]])  # the third lost a partner of 0.7
    np.testing.assert_allclose(losses.mean_weight(labels, (1.0, 3.0, 9.0)), [1, 2.5, 1, 0], rtol=1e-6)
