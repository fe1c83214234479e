"""Writes a trained network for TensorFlow Lite: in float32, or smaller and faster with quantised weights."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.data.pipeline import sample_images
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.export import exporter
from effnetv2_keras.models.keras_compat import tf_variables

NUM_CALIBRATION = 100
"""Training images on which ``int8`` measures the range of every activation."""
NUM_COMPARED = 1000
"""Evaluation images, at most, on which ``int8`` is compared with the network."""

_TOLERANCES: dict[str, float] = {"none": 1e-4, "float16": 2e-2, "dynamic": 0.3, "int8": float("inf")}
_LEAST_AGREEMENT = 0.9


def make_interpreter(path: str) -> Any:
    """Opens a network with LiteRT, which has taken the place of TensorFlow's own interpreter, or with that one."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter  # noqa: N806  a class
    return Interpreter(path)


class TfliteExporter(exporter.Exporter):
    """One image of a fixed size at a time: pixels 0..255 ``[1, S, S, 3]`` to logits, float32 ``[1, classes]``.

    The pixels are float32, for ``int8`` uint8. ``float16`` and ``dynamic`` (8 bits) shrink the weights; ``int8``
    computes in whole numbers throughout, its activations scaled as ``NUM_CALIBRATION`` training images suggest.

    Networks of mixed precision are exported, and compared, in float32. Differences of logits up to 1e-4 (none), 0.02
    (float16) and 0.3 (dynamic) of the largest pass. Of int8 any number passes, since single logits may be far off
    where the classes are right; but the top-1 must be the network's on at least nine in ten of up to ``NUM_COMPARED``
    evaluation images.
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
            ExportError: if ``int8`` finds no images to calibrate with.
        """
        pixels = tf.TensorSpec([1, self.image_size, self.image_size, 3], tf.float32, name="images")
        network = tf.function(lambda images: self.network(images, training=False), autograph=False)
        held = tf.Module()  # by which the converter finds the weights
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
        """See ``Exporter.load``; one call is one run of an interpreter that is kept for that number of images."""
        path = str(folder / TfliteExporter.marker)

        @functools.cache  # resizing one would count as a part of every call's time
        def interpreter_for(count: int) -> Any:
            interpreter = make_interpreter(path)  # on one thread, its default; several stall where cores are busy
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
        """Compares with the network: ``int8``, whose scales fit photographs and not noise, on evaluation images."""
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
                f"In int8 the network gives the same top-1 on {comparison.same_top1} of {comparison.num_images} "
                "evaluation images only, so nothing was exported. Use --quantize=dynamic or float16, or train with "
                "--hparam_str=model.act_fn=relu6, whose activations have a narrow range."
            )

    def _calibration(self) -> Iterator[list[exporter.Logits]]:
        """Training images as the converter takes them, float32 ``[1, S, S, 3]``."""
        for number, image in enumerate(self._sample(self._open_splits().train, NUM_CALIBRATION)):
            pixels = image.astype(np.float32)
            if number == 0:
                pixels[0, 0, :2, 0] = 0, 255  # both ends of the range, so that a byte means that pixel and no other
            yield [pixels]

    def _sample(self, source: Source, count: int) -> Iterator[exporter.Pixels]:
        """Images of a source, uint8 ``[1, S, S, 3]``.

        Raises:
            ExportError: if none can be read.
        """
        dataset = sample_images(source, self.trained.config.data, image_size=self.image_size, count=count)
        empty = True
        total = min(count, source.num_examples)
        for image in exporter.shown(dataset.batch(1).as_numpy_iterator(), "int8: images", total):
            empty = False
            yield image
        if empty:
            raise exporter.ExportError("--quantize=int8 found no image of the run's data that can be decoded.")

    def _open_splits(self) -> Splits:
        try:
            return self._splits or open_splits(self.trained.config.data)
        except DataError as error:
            raise exporter.ExportError(
                f"--quantize=int8 needs images of the run's data, which cannot be opened: {error} Say where they are "
                "by --data_dir, or use --quantize=dynamic or float16, which need none."
            ) from error
