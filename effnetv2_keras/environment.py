"""Sets environment variables that TensorFlow reads when it is imported; import this module before TensorFlow.

Variables that are already set keep their values, unless TensorFlow cannot be imported with them. ``cache_folder`` reads
the variable of this package.
"""

import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
"""Hides TensorFlow's notices at start-up."""
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
"""Uses oneDNN's convolutions on every x86 processor; by default, TensorFlow uses them only on some. With them, a
training step of B0 at 128 px takes 0.8 of the time on two AVX2 cores, and results are still bit-identical between runs.
"""

if importlib.util.find_spec("tf_keras") is None:
    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # with it, TensorFlow would search for tf_keras endlessly
elif "tensorflow" not in sys.modules:  # otherwise tf.keras would be Keras 2, but `import tensorflow.keras` Keras 3
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    """Makes ``tf.keras`` Keras 2, which training needs. TensorFlow 2.15 has only Keras 2 and needs no ``tf_keras``."""

CACHE_VARIABLE = "EFFNETV2_KERAS_CACHE"
"""Environment variable with the folder of files that are kept between runs: published weights, verified images."""


def cache_folder() -> pathlib.Path:
    """Returns the folder that ``CACHE_VARIABLE`` names, or ``~/.cache/effnetv2_keras`` if it is not set.

    The folder may not exist.
    """
    return pathlib.Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/effnetv2_keras").expanduser()
