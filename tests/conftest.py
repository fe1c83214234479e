"""Settings that must precede TensorFlow: quiet logs, oneDNN, and two logical CPU devices for the tests of replicas.

Tests that name no device run on the first of the two. Without TensorFlow, the tests that need none still run. What
TensorFlow says is deprecated, the package must not call.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import pathlib

import hypothesis
import pytest

import effnetv2_keras.environment  # noqa: F401  before TensorFlow

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

if importlib.util.find_spec("tensorflow") is not None:
    import tensorflow as tf
    from tensorflow.python.util import deprecation

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


SOURCES = tuple(str(pathlib.Path(__file__).parents[1] / name) for name in ("effnetv2_keras", "hparams", "main.py"))
DEPRECATED_CALLS: list[str] = []


def note_deprecated_calls(record: logging.LogRecord) -> bool:
    """Keeps what TensorFlow logs where the package calls what it deprecates: "From file:line: ..."."""
    message = record.getMessage()
    if "deprecated" in message and message.startswith(tuple(f"From {source}" for source in SOURCES)):
        DEPRECATED_CALLS.append(message)
    return True


logging.getLogger("tensorflow").addFilter(note_deprecated_calls)


@pytest.fixture(autouse=True)
def deprecated_calls():
    """Fails a test in which the package calls what TensorFlow deprecates; what it logged, for those that mean to."""
    if "tf" in globals():
        deprecation._PRINTED_WARNING.clear()  # TensorFlow says it once in a process, whoever called first
    yield DEPRECATED_CALLS
    calls = DEPRECATED_CALLS.copy()
    DEPRECATED_CALLS.clear()
    assert not calls


def pytest_configure(config: pytest.Config) -> None:
    """Lets pytest-xdist start files in order; it would start those with few tests last, and they take longest."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is not for the Keras at hand: ``TF_USE_LEGACY_KERAS=0`` tests with Keras 3."""
    from effnetv2_keras.models.keras_compat import IS_KERAS_3

    for item in items if IS_KERAS_3 else ():
        if item.get_closest_marker("keras_2"):
            item.add_marker(pytest.mark.skip(reason="needs Keras 2"))


# Tracing makes so many objects that looking for garbage among them and TensorFlow's own takes a tenth of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def two_replicas() -> tf.distribute.Strategy:
    """Two mirrored replicas on the CPU.

    They do without collective operations, whose keys TensorFlow counts from the same start in every
    ``MirroredStrategy``: the second one of a process fails if it reduces a tensor of another shape.
    """
    return tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())


@pytest.fixture(scope="module")
def graphs_as_traced():
    """Leaves out TensorFlow's graph optimiser, which takes longer than a few steps of a tiny network."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
