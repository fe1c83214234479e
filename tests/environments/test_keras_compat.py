"""Which Keras is taken, and what is refused with the wrong one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from effnetv2_keras import Config, build_model
from effnetv2_keras.architecture.specs import KerasSpec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import BatchNorm, training_scope
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.keras_models import build_keras_model
from effnetv2_keras.models.scopes import stochastic_scope
from effnetv2_keras.training.state import create_state
from tests.tiny import TINY

HAS_CHOICE = importlib.util.find_spec("tf_keras") is not None
NEEDS_CHOICE = pytest.mark.skipif(not HAS_CHOICE, reason="TensorFlow 2.15 has Keras 2 alone")
NEEDS_KERAS_3 = pytest.mark.skipif(not IS_KERAS_3, reason="needs Keras 3")
IS_3 = "import tensorflow as tf; print('keras 3' if hasattr(tf.keras, 'ops') else 'keras 2')"


def printed_by(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **variables}, check=False
    )
    return done.stdout + done.stderr


@NEEDS_CHOICE
@pytest.mark.parametrize("first", ["import effnetv2_keras.environment", "import effnetv2_keras.training"])
def test_training_takes_keras_2(first):
    assert "keras 2" in printed_by(f"{first}\n{IS_3}")


@NEEDS_CHOICE
def test_networks_take_what_tensorflow_has():
    assert "keras 3" in printed_by(f"from effnetv2_keras import build_model\nbuild_model\n{IS_3}")
    code = f"from effnetv2_keras import build_model\nbuild_model\n{IS_3}"
    assert "keras 2" in printed_by(code, TF_USE_LEGACY_KERAS="1")


@pytest.mark.skipif(HAS_CHOICE, reason="has tf_keras")
def test_keras_2_can_be_asked_for_where_there_is_no_other():
    assert "keras 2" in printed_by(f"import effnetv2_keras.environment\n{IS_3}", TF_USE_LEGACY_KERAS="1")


@NEEDS_CHOICE
@pytest.mark.parametrize(("first", "value"), [("import tensorflow", None), ("import effnetv2_keras.training", "0")])
def test_training_is_refused_where_keras_3_came_first(first, value):
    code = f"{first}\nfrom effnetv2_keras import Config, train\ntrain(Config(), 'run')"
    text = printed_by(code, **({"TF_USE_LEGACY_KERAS": value} if value else {}))
    assert "UsageError: Training needs Keras 2, but tf.keras is Keras 3." in text
    assert f"TF_USE_LEGACY_KERAS is {value or 'not set'}. Install the version of tf_keras" in text
    assert "or leave it unset and `import effnetv2_keras.environment` before anything imports" in text


@NEEDS_KERAS_3
def test_what_belongs_to_training_is_refused():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with pytest.raises(UsageError, match="Training needs Keras 2"):
        create_state(Config().with_network(TINY), strategy, num_classes=2, steps_per_epoch=1.0, total_steps=1)
    with pytest.raises(UsageError, match="keras:ResNet50 needs Keras 2"):
        build_keras_model(KerasSpec("keras:ResNet50"), num_classes=2)
    with pytest.raises(UsageError, match=r"training_scope\(sync_bn=True\) needs Keras 2"), training_scope(sync_bn=True):
        BatchNorm()(tf.zeros([2, 3]), training=True)
    model = build_model(TINY, num_classes=2)
    again, seeded = training_scope(rematerialize=True), stochastic_scope(tf.zeros([2], tf.int32))
    with pytest.raises(UsageError, match=r"training_scope\(rematerialize=True\) needs Keras 2"), again, seeded:
        model(tf.zeros([1, 24, 24, 3]), training=True)


@NEEDS_KERAS_3
def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(tf.keras.config, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="backend of Keras is 'jax', .* Set KERAS_BACKEND=tensorflow"):
        build_model(TINY)
