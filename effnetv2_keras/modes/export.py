"""``--mode=export``: writes the network of a run as a SavedModel, Keras, TensorFlow Lite or ONNX file."""

from __future__ import annotations

import dataclasses

from absl import logging

from effnetv2_keras import export
from effnetv2_keras.basics.activity import doing
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.settings import reads_of_export
from effnetv2_keras.runs.trained import load_trained


def run(invocation: Invocation) -> None:
    """Exports the network, compares the reloaded export's logits with the network's, and prints a report."""
    options = invocation.options
    logging.set_verbosity(logging.WARNING)  # TensorFlow logs each step of writing a SavedModel
    format_name = invocation.format(export.EXPORTERS)
    if options.quantize != "int8":
        invocation.refuse("Only --quantize=int8 reads images", "data_dir")
    changes = {**invocation.changes(reads_of_export(options.quantize)), **invocation.data_changes()}
    trained = load_trained(invocation.model_dir(), which=options.weights, use_ema=options.use_ema)
    invocation.say(f"Exporting {trained.spec.name} as {format_name}, then checking the export.")
    with doing("exporting, then checking the export"):
        report = export.export_model(
            dataclasses.replace(trained, config=trained.config.override(changes)),
            options.export_dir or export.default_path(invocation.model_dir(), format_name, options.quantize),
            format_name=format_name,
            quantize=options.quantize,
            image_size=options.image_size,
            overwrite=options.overwrite,
            trainable=options.trainable,
        )
    invocation.say(report.describe())
