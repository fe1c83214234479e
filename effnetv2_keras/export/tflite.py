"""Exports a trained network to TensorFlow Lite: in float32, or smaller and faster with quantized weights."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.data.samples import sample_images
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.export import exporter
from effnetv2_keras.models.keras_compat import tf_variables

NUM_CALIBRATION = 100
"""Number of training images on which ``int8`` measures the range of every activation."""
NUM_COMPARED = 1000
"""Largest number of evaluation images on which ``int8`` is compared with the network."""

_TOLERANCES: dict[str, float] = {"none": 1e-4, "float16": 2e-2, "dynamic": 0.3, "int8": float("inf")}
_LEAST_AGREEMENT = 0.9


def make_interpreter(path: str) -> Any:
    """Returns a LiteRT interpreter for a model file, or TensorFlow's older interpreter if LiteRT is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter  # noqa: N806  a class
    return Interpreter(path)


class TfliteExporter(exporter.Exporter):
    """Exports a TensorFlow Lite model for one image of a fixed size at a time.

    It maps ``images``, pixels 0..255 ``[1, S, S, 3]``, float32 (uint8 for ``int8``), to ``logits``, float32
    ``[1, classes]``. These are the names in its signature ``serving_default``.
    ``float16`` and ``dynamic`` (8 bits) make the weights smaller. ``int8`` computes entirely in integers, with
    activation ranges measured on ``NUM_CALIBRATION`` training images.

    Mixed-precision networks are exported and compared in float32. Logits may differ by 1e-4 (none), 0.02 (float16) or
    0.3 (dynamic) of the largest logit. For int8 there is no limit, because single logits may differ a lot while the
    classes are right. Instead, the top-1 class must be the same on at least 90 % of up to ``NUM_COMPARED`` evaluation
    images.
    """

    folder = "tflite"
    marker = "model.tflite"
    quantizations = ("none", "float16", "dynamic", "int8")
    float32_only = True

    @property
    def tolerance(self) -> float:
        """See ``Exporter.tolerance``."""
        return _TOLERANCES[self.quantize]

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``.

        Raises:
            ExportError: if ``int8`` finds no images for calibration.
        """
        pixels = tf.TensorSpec([1, self.image_size, self.image_size, 3], tf.float32, name="images")
        network = tf.function(lambda images: {"logits": self.network(images, training=False)}, autograph=False)
        held = tf.Module()  # the converter finds the weights through this module
        held.weights = tf_variables(self.network.weights)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function(pixels)], held)
        if self.quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if self.quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if self.quantize == "int8":
            converter.representative_dataset = self._calibration
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        (folder / self.marker).write_bytes(converter.convert())

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``; a call runs an interpreter that is cached for its number of images."""
        path = str(folder / TfliteExporter.marker)

        @functools.cache  # otherwise the time of resizing would count in every measured call
        def interpreter_for(count: int) -> Any:
            interpreter = make_interpreter(path)  # one thread, the default: several threads stall if cores are busy
            (source,) = interpreter.get_input_details()
            interpreter.resize_tensor_input(source["index"], [count, *source["shape"][1:]])
            interpreter.allocate_tensors()
            return interpreter

        def run(images: exporter.Pixels) -> exporter.Logits:
            interpreter = interpreter_for(len(images))
            (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.set_tensor(source["index"], images.astype(source["dtype"]))
            interpreter.invoke()
            return interpreter.get_tensor(target["index"])

        return run

    def compare(self, folder: pathlib.Path) -> exporter.Comparison:
        """See ``Exporter.compare``; ``int8`` uses evaluation images, because its ranges do not fit noise."""
        if self.quantize != "int8":
            return super().compare(folder)
        runtime, network = self.load(folder), exporter.network_runtime(self.trained)
        images = self._sample(self._open_splits().evaluation, NUM_COMPARED)
        pairs = [(runtime(image), network(image)) for image in images]
        logits, expected = map(np.concatenate, zip(*pairs))
        same = int(np.sum(logits.argmax(-1) == expected.argmax(-1)))
        return exporter.Comparison(exporter.relative_difference(logits, expected), same, len(pairs))

    def _check(self, comparison: exporter.Comparison) -> None:
        super()._check(comparison)
        if comparison.same_top1 < _LEAST_AGREEMENT * comparison.num_images:
            raise exporter.ExportError(
                f"Nothing was exported: the int8 network gives the same top-1 on only {comparison.same_top1} of "
                f"{comparison.num_images} evaluation images; at least {_LEAST_AGREEMENT:.0%} is needed. Use "
                "--quantize=dynamic or float16, or train with --hparam_str=model.act_fn=relu6, whose activations have "
                "a narrow range."
            )

    def _calibration(self) -> Iterator[list[exporter.Logits]]:
        """Yields training images as the converter needs them, float32 ``[1, S, S, 3]``."""
        for number, image in enumerate(self._sample(self._open_splits().train, NUM_CALIBRATION)):
            pixels = image.astype(np.float32)
            if number == 0:
                pixels[0, 0, :2, 0] = 0, 255  # with both ends of the range, each input byte is exactly one pixel level
            yield [pixels]

    def _sample(self, source: Source, count: int) -> Iterator[exporter.Pixels]:
        """Yields up to ``count`` images of a source, uint8 ``[1, S, S, 3]``.

        Raises:
            ExportError: if no image can be decoded.
        """
        dataset = sample_images(source, self.trained.config.data, image_size=self.image_size, count=count)
        empty = True
        total = min(count, source.num_examples)
        for image in exporter.shown(dataset.batch(1).as_numpy_iterator(), "int8: images", total):
            empty = False
            yield image
        if empty:
            raise exporter.ExportError(
                "--quantize=int8 needs images, but no image of the run's data can be decoded. Choose other data with "
                "--data_dir, or use --quantize=dynamic or float16, which need no images."
            )

    def _open_splits(self) -> Splits:
        try:
            return self._splits or open_splits(self.trained.config.data)
        except DataError as error:
            raise exporter.ExportError(
                f"--quantize=int8 needs images of the run's data, which cannot be opened: {error} Give their folder "
                "with --data_dir, or use --quantize=dynamic or float16, which need no images."
            ) from error
