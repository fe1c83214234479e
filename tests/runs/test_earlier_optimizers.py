"""Checkpoints of the optimizers of earlier versions are restored, and the next steps are the same.

``written_before/optimizers`` holds, for each optimizer of version 0.1.0 with TensorFlow 2.15.1 (those of Keras 2, and
LAMB of TensorFlow Addons), a checkpoint after three steps, and the variables after three more.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.optim import optimizers, schedules
from effnetv2_keras.runs.earlier_optimizers import restorable

FOLDER = pathlib.Path(__file__).parent / "written_before" / "optimizers"
AFTER = json.loads((FOLDER / "after.json").read_text())


class Written:
    """The variables and the optimizer of a file."""

    def __init__(self, label: str) -> None:
        self.variables = [tf.Variable(tf.zeros(shape), name="kernel") for shape in ((3, 2), (2,))]
        name, _, kind = label.partition("_")
        self.optimizer = optimizers.make_optimizer(
            name,
            schedule=schedules.WarmupSchedule("cosine", 0.1, 130, 10, 1.0, 1.0, 0.0),
            weight_decay=schedules.WeightDecay(0.1, 3.0, 20),
            not_decayed=self.variables[1:],
            loss_scaling=kind == "float16",
        )
        self.optimizer.build(self.variables)
        path = str(FOLDER / label)
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        model = tf.train.Checkpoint(kernel=self.variables[0], bias=self.variables[1])
        parts = {"model": model, "optimizer": restorable(self.optimizer, stored)}
        self.status = tf.train.Checkpoint(**parts).read(path)

    def step(self, number: int) -> None:
        values = [np.random.default_rng(number).normal(size=variable.shape) for variable in self.variables]
        gradients = [tf.constant(value, tf.float32) for value in values]
        self.optimizer.apply_gradients(zip(gradients, self.variables))


@pytest.mark.parametrize("label", AFTER)
def test_the_next_steps_are_the_same(label):
    written = Written(label)
    written.status.assert_consumed()
    assert written.optimizer.iterations.numpy() == 3
    for number in range(4, 7):
        written.step(number)
    for variable, expected in zip(written.variables, AFTER[label]):
        if label == "lamb_addons":  # whose arithmetic is rounded in another order
            np.testing.assert_allclose(variable, expected, rtol=1e-6)
        else:
            np.testing.assert_array_equal(variable, np.float32(expected))


def test_every_optimizer_is_there():
    assert {label.partition("_")[0] for label in AFTER} == set(optimizers.OPTIMIZERS)


def test_the_loss_scale_goes_on():
    assert int(Written("adam_float16").optimizer.loss_scale.good_steps) == 3


def test_an_unknown_slot_is_no_match():
    """Slots of one optimizer are not taken for those of another with fewer."""
    path, variables = str(FOLDER / "rmsprop"), [tf.Variable(tf.zeros(shape)) for shape in ((3, 2), (2,))]
    optimizer = optimizers.make_optimizer("momentum", schedule=0.1)
    optimizer.build(variables)
    stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    model = tf.train.Checkpoint(kernel=variables[0], bias=variables[1])
    status = tf.train.Checkpoint(model=model, optimizer=restorable(optimizer, stored)).read(path)
    with pytest.raises(AssertionError, match="Unresolved object in checkpoint"):
        status.assert_consumed()
    status.expect_partial()  # logs nothing about it later
