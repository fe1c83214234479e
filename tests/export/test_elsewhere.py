"""Every format in a process that has only what it takes to run it; for the SavedModel see ``test_saved_model``."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from effnetv2_keras.export import EXPORTERS, export_model
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import block_images

KERAS = """
import sys
import effnetv2_keras.models
import tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1] + "/model.keras")
run = lambda images: model(images, training=False).numpy()
"""
TFLITE = """
import sys
sys.modules["effnetv2_keras"] = None
import tensorflow as tf
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = tf.lite.Interpreter
interpreter = Interpreter(sys.argv[1] + "/model.tflite")
interpreter.allocate_tensors()
(source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
def run(images):
    logits = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None].astype(source["dtype"]))
        interpreter.invoke()
        logits.append(interpreter.get_tensor(target["index"])[0])
    return logits
"""
ONNX = """
import sys
sys.modules["effnetv2_keras"] = sys.modules["tensorflow"] = None
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
run = lambda images: session.run(["logits"], {"images": images.astype("float32")})[0]
"""
SAVE = """
import numpy as np
np.save("logits.npy", run(np.load("images.npy")))
"""


# Format, quantization, script, and the difference of logits allowed, over the largest.
CASES = [
    ("keras", "none", KERAS, 1e-5),
    ("tflite", "none", TFLITE, 1e-4),
    ("onnx", "none", ONNX, 1e-4),
]


@pytest.mark.parametrize(
    ("format_name", "quantize", "script", "tolerance"),
    [pytest.param(*CASES[0], marks=pytest.mark.slow), *CASES[1:]],
)
def test_runs_in_a_process_of_its_own(
    format_name: str, quantize: str, script: str, tolerance: float, trained: Trained, tmp_path: pathlib.Path
):
    folder = tmp_path / "export"
    export_model(trained, folder, format_name=format_name, quantize=quantize)
    images = block_images(3)
    np.save(tmp_path / "images.npy", images)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if format_name == "keras":
        environment["PYTHONPATH"] = str(pathlib.Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", script + SAVE, str(folder)], cwd=tmp_path, env=environment, check=True)
    expected = trained.model(images, training=False).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=tolerance * np.abs(expected).max())


def test_no_format_is_left_out():
    assert {"savedmodel", *(name for name, *_ in CASES)} == set(EXPORTERS)
