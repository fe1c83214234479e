"""Takes a trained network out of this package, in any of several formats."""

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
"""Every format, by the name that ``--format`` takes."""


def default_path(model_dir: str, format_name: str, quantize: str = "none") -> str:
    """The folder of an export in a run's folder: ``RUN/saved_model``, ``RUN/tflite_int8``."""
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
) -> ExportReport:
    """Writes a network into a folder, after reloading it and comparing it with the original.

    Args:
        trained: the network.
        path: folder to make; ``labels.txt`` in it lists the classes.
        format_name: a key of ``EXPORTERS``.
        quantize: of TensorFlow Lite: the type of the weights, and for ``"int8"`` of the activations.
        image_size: side of the images, pixels; None: the run's evaluation size.
        splits: where ``"int8"`` takes images from; None opens what the run's configuration names.
        overwrite: replace an export of the same format that is there.

    Raises:
        ExportError: for settings that do not fit the format, a folder that is taken, or a reloaded export that gives
            other logits than the network.
    """
    size = trained.config.eval_size if image_size is None else image_size
    exporter = EXPORTERS[format_name](trained, size, quantize=quantize, splits=splits)
    return exporter.export(pathlib.Path(path), overwrite=overwrite)
