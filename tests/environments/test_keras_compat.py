"""Which Keras is taken, whatever is imported first."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from effnetv2_keras import build_model
from effnetv2_keras.architecture.specs import KerasSpec
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.models.keras_models import build_keras_model
from tests.tiny import TINY

HAS_TF_KERAS = importlib.util.find_spec("tf_keras") is not None
NEEDS_KERAS_3 = pytest.mark.skipif(not IS_KERAS_3, reason="needs Keras 3")
IS_3 = "import tensorflow as tf; print('keras 3' if hasattr(tf.keras, 'ops') else 'keras 2')"


def printed_by(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **variables}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def keras_of(value: str | None) -> str:
    """Returns the Keras that TensorFlow takes with this value of ``TF_USE_LEGACY_KERAS``."""
    if value == "1" and not HAS_TF_KERAS:
        pytest.skip("TensorFlow takes Keras 2 only where there is tf_keras")
    only_2 = tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16)
    return "keras 2" if only_2 or value == "1" else "keras 3"


@pytest.mark.parametrize("value", [None, "0", "1"])
def test_tensorflow_alone_chooses(value):
    expected, variables = keras_of(value), {"TF_USE_LEGACY_KERAS": value} if value else {}
    show = "import os; print(os.environ.get('TF_USE_LEGACY_KERAS'))"
    printed = printed_by(f"import effnetv2_keras.training\n{IS_3}\n{show}", **variables)
    assert printed.splitlines() == [expected, str(value)]


@pytest.mark.parametrize(
    "lines",
    [("import effnetv2_keras; effnetv2_keras.train",), pytest.param(("import tensorflow",), marks=pytest.mark.slow)],
)
def test_the_order_of_imports_does_not_matter(lines):
    code = "\n".join([*lines, "from effnetv2_keras import build_model, train", IS_3])
    assert printed_by(code).splitlines() == [keras_of(None)]


TRAIN = """
import tensorflow as tf
tf.keras.layers.Dense(1)
import pathlib, sys
from effnetv2_keras import train
from tests.short_runs import tiny_config
from effnetv2_keras.models.keras_models import build_keras_model
from tests.tiny import SMALL
from tests.training.test_loop import array_splits
changes = "progressive.stages=1,train.epochs=2,model.model_name=efficientnetv2-b0"
row = train(tiny_config(changes).with_network(SMALL), sys.argv[1], splits=array_splits())
print(row["kind"], row["step"] > 0)
"""


def test_training_follows_an_import_of_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "run")], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["eval True"], done.stderr


@NEEDS_KERAS_3
def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(tf.keras.config, "backend", lambda: "jax")
    for build in (build_model, functools.partial(build_keras_model, num_classes=2)):
        with pytest.raises(UsageError, match="backend of Keras is 'jax', .* Set KERAS_BACKEND=tensorflow"):
            build(TINY if build is build_model else KerasSpec("keras:ResNet50"))
