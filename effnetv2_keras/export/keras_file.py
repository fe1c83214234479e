"""Writes a trained network as a ``.keras`` file, to train on or build upon with this package imported."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import Any

import tensorflow as tf

from effnetv2_keras.export import exporter

_CONFIG = "config.json"
"""Where a ``.keras`` archive keeps the architecture."""


class KerasExporter(exporter.Exporter):
    """A functional Keras model: pixels 0..255, uint8 or float ``[N, H, W, 3]``, to logits, float32 ``[N, classes]``.

    ``tf.keras.models.load_model`` reads it once ``effnetv2_keras.models`` is imported, whose layers it names. Networks
    of ``build_model`` that Keras 2 writes, other versions and Keras 3 read, too.
    """

    folder = "keras"
    marker = "model.keras"

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``."""
        self.network.save(folder / self.marker)
        _make_portable(folder / self.marker)

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``."""
        model = tf.keras.models.load_model(folder / KerasExporter.marker, compile=False)
        call = tf.function(lambda images: model(images, training=False), autograph=False, reduce_retracing=True)
        return lambda images: call(tf.constant(images)).numpy()


def _make_portable(path: pathlib.Path) -> None:
    """Names Keras' classes in a ``.keras`` file so that other versions find them, too."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[_CONFIG] = json.dumps(_portable(json.loads(members[_CONFIG]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _portable(config: Any) -> Any:
    """Puts ``keras.Model`` for its functional kind, wherever that is, and a policy's name for it.

    What only the newer Keras 2 has and 2.15 refuses is left out.
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
    return config
