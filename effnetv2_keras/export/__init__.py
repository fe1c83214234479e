"""Exports a trained network to use it without this package: SavedModel, Keras, TensorFlow Lite, ONNX."""

from __future__ import annotations

import os
import pathlib

from effnetv2_keras.data.splits import Splits
from effnetv2_keras.export.exporter import Comparison, Exporter, ExportError, ExportReport
from effnetv2_keras.export.keras_file import KerasExporter
from effnetv2_keras.export.onnx import OnnxExporter
from effnetv2_keras.export.saved_model import SavedModelExporter
from effnetv2_keras.export.tflite import TfliteExporter
from effnetv2_keras.runs.trained import Trained

__all__ = [
    "EXPORTERS",
    "Comparison",
    "ExportError",
    "ExportReport",
    "Exporter",
    "default_path",
    "export_model",
]

EXPORTERS: dict[str, type[Exporter]] = {
    "savedmodel": SavedModelExporter,
    "keras": KerasExporter,
    "tflite": TfliteExporter,
    "onnx": OnnxExporter,
}
"""The exporter for each ``--format``."""


def default_path(model_dir: str, format_name: str, quantize: str = "none") -> str:
    """Returns the default folder of an export in a run's folder, such as ``RUN/saved_model`` or ``RUN/tflite_int8``."""
    folder = EXPORTERS[format_name].folder
    return os.path.join(model_dir, folder if quantize == "none" else f"{folder}_{quantize}")


def export_model(
    trained: Trained,
    path: str | os.PathLike[str],
    *,
    format_name: str = "savedmodel",
    quantize: str = "none",
    image_size: int | None = None,
    splits: Splits | None = None,
    overwrite: bool = False,
    trainable: bool = False,
) -> ExportReport:
    """Exports a network to a folder; the export is reloaded and its logits compared with those of the network.

    Args:
        trained: the network.
        path: folder to create; its ``labels.txt`` lists the classes.
        format_name: a key of ``EXPORTERS``.
        quantize: for TensorFlow Lite: the type of the weights, and for ``"int8"`` also of the activations.
        image_size: side of the images, pixels; None for the run's evaluation size.
        splits: images for ``"int8"``; None opens the data that the run's configuration names.
        overwrite: whether to replace an existing export of the same format.
        trainable: for SavedModel: whether the weights stay variables, which can be trained further; slower.

    Returns:
        Where the export is, its size and speed, and how closely it matches the network.

    Raises:
        ExportError: if a setting does not fit the format, the folder is in use, or the logits of the reloaded export
            differ from those of the network.
    """
    size = trained.config.eval_size if image_size is None else image_size
    exporter = EXPORTERS[format_name](trained, size, quantize=quantize, splits=splits, trainable=trainable)
    return exporter.export(pathlib.Path(path), overwrite=overwrite)
