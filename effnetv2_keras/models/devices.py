"""Where a network runs."""

from __future__ import annotations

import tensorflow as tf


def on_cpu() -> bool:
    """Returns whether there is neither a GPU nor a TPU."""
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
