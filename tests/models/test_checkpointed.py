from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture.variants import any_spec
from effnetv2_keras.models import build_model
from effnetv2_keras.models.checkpointed import checkpointed
from effnetv2_keras.models.keras_models import build_keras_model
from tests.models.filling import fill_at_random
from tests.names import values_of
from tests.tiny import TINY

NAMES = json.loads(pathlib.Path(__file__).with_name("checkpoint_names.json").read_text())
"""Names and shapes of the variables in checkpoints that were written with Keras 2.15."""


def networks():
    return {
        "tiny": build_model(TINY, num_classes=3),
        "keras:tests.own_networks:tiny": build_keras_model(any_spec("keras:tests.own_networks:tiny"), num_classes=3),
    }


@pytest.mark.parametrize("name", NAMES)
def test_both_keras_write_the_same_names(name, tmp_path):
    path = tf.train.Checkpoint(model=checkpointed(networks()[name])).write(str(tmp_path / "ckpt"))
    found = {key.split("/.A")[0]: shape for key, shape in tf.train.list_variables(path) if key.startswith("model/")}
    assert found == NAMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_restored(name, tmp_path):
    saved, other = (networks()[name] for _ in range(2))
    fill_at_random(saved)
    path = tf.train.Checkpoint(model=checkpointed(saved)).write(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(model=checkpointed(other)).read(path).assert_consumed()
    values = values_of(other)
    for key, value in values_of(saved).items():
        np.testing.assert_array_equal(values[key], value)
        assert np.ptp(value) > 0 or value.size == 1
