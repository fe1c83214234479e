"""Shared fixtures, and settings that must precede TensorFlow: log level, oneDNN, and two logical CPU devices.

Tests of replicas use both devices; tests that name no device run on the first. Without TensorFlow, tests that do not
need it still run. A test fails if the package calls a function that TensorFlow reports as deprecated.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import pathlib

import hypothesis
import pytest

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# There is no deadline, because the time of an example depends more on the machine than on the code.
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
    """Collects TensorFlow's warnings about deprecated calls in the package, "From file:line: ..."."""
    message = record.getMessage()
    if "deprecated" in message and message.startswith(tuple(f"From {source}" for source in SOURCES)):
        DEPRECATED_CALLS.append(message)
    return True


logging.getLogger("tensorflow").addFilter(note_deprecated_calls)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keeps verified images out of the user's cache folder."""
    os.environ["EFFNETV2_KERAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def deprecated_calls():
    """Fails a test in which the package makes a deprecated call; gives the warnings to tests that expect them."""
    if "tf" in globals():
        deprecation._PRINTED_WARNING.clear()  # TensorFlow logs each warning only once in a process
    yield DEPRECATED_CALLS
    calls = DEPRECATED_CALLS.copy()
    DEPRECATED_CALLS.clear()
    assert not calls


def pytest_configure(config: pytest.Config) -> None:
    """Lets pytest-xdist start files in order; it would start those with few tests last, and they take longest."""
    config.option.loadscopereorder = False


# Tracing creates so many objects that, by default, garbage collection takes a tenth of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def two_replicas() -> tf.distribute.Strategy:
    """Two mirrored replicas on the CPU, without collective operations.

    TensorFlow numbers the keys of collective operations from the same start in every ``MirroredStrategy``, so the
    second strategy of a process would fail if it reduced a tensor of another shape.
    """
    return tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())


@pytest.fixture(scope="module")
def graphs_as_traced():
    """Turns TensorFlow's graph optimizer off, which takes longer than a few steps of a tiny network."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
