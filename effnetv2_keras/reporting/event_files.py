"""Events for TensorBoard, written without the package ``tensorboard``, which ``tf.summary.scalar`` and ``image`` need.

Source: the data formats of TensorBoard's plugins "scalars" and "images" (``tensorboard/plugins/*/summary_v2.py``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf


def write_scalar(tag: str, value: float, *, step: int) -> None:
    """Writes a number, as float32, with the default writer.

    Args:
        tag: name of the curve.
        value: the number.
        step: step of the run.
    """
    tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=_metadata("scalars"))


def write_image(tag: str, pixels: npt.NDArray[np.uint8], *, step: int) -> None:
    """Writes an image with the default writer.

    Args:
        tag: name of the series of images.
        pixels: ``[height, width, 3]`` uint8.
        step: step of the run.
    """
    height, width, _ = pixels.shape
    content = tf.stack([str(width), str(height), tf.io.encode_png(pixels)])
    tf.summary.write(tag, content, step=step, metadata=_metadata("images"))


def _metadata(plugin: str) -> tf.compat.v1.SummaryMetadata:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    return metadata
