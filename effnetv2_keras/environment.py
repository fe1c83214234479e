"""Environment variables that TensorFlow reads when it is imported; import this module before it.

What the environment already sets, stays, unless TensorFlow could not be imported with it.
"""

import importlib.util
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
"""No start-up notices."""
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
"""oneDNN's convolutions on every x86 processor; TensorFlow chooses them by itself on some only. A B0 train step at 128
px takes 0.8 of the time on two AVX2 cores, and repeats bit for bit as before."""

if importlib.util.find_spec("tf_keras") is None:
    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # it would make TensorFlow look for tf_keras without end
elif "tensorflow" not in sys.modules:  # else tf.keras would be Keras 2, but `import tensorflow.keras` Keras 3
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    """Keras 2 as ``tf.keras``, which training needs; TensorFlow 2.15 has no other, and no package ``tf_keras``."""
