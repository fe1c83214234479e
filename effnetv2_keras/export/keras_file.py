"""Exports a trained network as a ``.keras`` file, for further training or as part of another model."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import Any

import tensorflow as tf

from effnetv2_keras.export import exporter
from effnetv2_keras.weights.conversion import to_keras_layers

_CONFIG = "config.json"
"""Member of a ``.keras`` archive that describes the architecture."""


class KerasExporter(exporter.Exporter):
    """Exports a functional Keras model that maps pixels 0..255 to logits.

    The input is uint8 or float ``[N, H, W, 3]``, the output float32 ``[N, classes]``. The model consists of Keras' own
    layers, so ``tf.keras.models.load_model`` loads it where this package is not installed. What Keras 2 writes can also
    be read by other versions of Keras 2 and by Keras 3.
    """

    folder = "keras"
    marker = "model.keras"

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``."""
        to_keras_layers(self.network).save(folder / self.marker)
        _make_portable(folder / self.marker)

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``."""
        model = tf.keras.models.load_model(folder / KerasExporter.marker, compile=False)
        call = tf.function(lambda images: model(images, training=False), autograph=False, reduce_retracing=True)
        return lambda images: call(tf.constant(images)).numpy()


def _make_portable(path: pathlib.Path) -> None:
    """Renames Keras' own classes in a ``.keras`` file so that other versions of Keras find them too."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[_CONFIG] = json.dumps(_portable(json.loads(members[_CONFIG]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _portable(config: Any) -> Any:
    """Returns the configuration with names that all versions know.

    ``Functional``, whose module differs, becomes ``keras.Model``, and a ``Policy`` becomes its name. Newer versions of
    Keras 2 write ``optional`` of ``InputLayer``, which 2.15 rejects. Keras 2 writes ``groups`` of ``DepthwiseConv2D``
    (always 1) and the axis of ``BatchNormalization`` as a list, which Keras 3 rejects.
    """
    if isinstance(config, list):
        return [_portable(part) for part in config]
    if not isinstance(config, dict):
        return config
    config = {key: _portable(value) for key, value in config.items()}
    if config.get("class_name") == "Functional":
        return {**config, "module": "keras", "class_name": "Model", "registered_name": None}
    if config.get("class_name") == "Policy":
        return config["config"]["name"]
    if config.get("class_name") == "InputLayer":
        config["config"].pop("optional", None)
    if config.get("class_name") == "DepthwiseConv2D":
        config["config"].pop("groups", None)
    if config.get("class_name") == "BatchNormalization":
        (config["config"]["axis"],) = tf.nest.flatten(config["config"]["axis"])
    return config
