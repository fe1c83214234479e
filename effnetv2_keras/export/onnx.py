"""Exports a trained network as an ONNX file, with tf2onnx, for ONNX Runtime and other runtimes."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.basics.packages import need
from effnetv2_keras.export import exporter
from effnetv2_keras.runs.trained import Trained

OPSET = 15
"""Version of the ONNX operators: the newest one that nearly all runtimes of recent years support."""


class OnnxExporter(exporter.Exporter):
    """Exports an ONNX model for images of a fixed size, in batches of any size.

    The input is ``images``, float32 pixels 0..255 ``[batch, S, S, 3]``; the output is ``logits``, float32 ``[batch,
    classes]``. ``batch`` is the name of the only dimension that may vary.
    Mixed-precision networks are exported and compared in float32. Logits may differ by 1e-4 of the largest logit.

    Raises:
        PackageMissing: if tf2onnx or onnxruntime is not installed.
    """

    folder = "onnx"
    marker = "model.onnx"
    float32_only = True

    def __init__(self, trained: Trained, image_size: int, **settings: Any) -> None:
        for name in ("tf2onnx", "onnxruntime"):
            need(name, "--format=onnx")
        super().__init__(trained, image_size, **settings)

    @property
    def tolerance(self) -> float:
        """See ``Exporter.tolerance``."""
        return 1e-4

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``."""
        import tf2onnx

        pixels = tf.TensorSpec([None, self.image_size, self.image_size, 3], tf.float32, name="images")
        network = tf.function(
            lambda images: {"logits": self.network(images, training=False)}, input_signature=[pixels], autograph=False
        )
        model, _ = tf2onnx.convert.from_function(network, input_signature=[pixels], opset=OPSET)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"  # tf2onnx calls it unk__ and a number
        (folder / self.marker).write_bytes(model.SerializeToString())

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / OnnxExporter.marker), providers=["CPUExecutionProvider"])
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        return lambda images: session.run([target.name], {source.name: images.astype(np.float32)})[0]
