"""Writes a trained network as a ``.keras`` file, to train on or build upon with this package imported."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from effnetv2_keras.export import exporter


class KerasExporter(exporter.Exporter):
    """A functional Keras model: pixels 0..255, uint8 or float ``[N, H, W, 3]``, to logits, float32 ``[N, classes]``.

    ``tf.keras.models.load_model`` reads it once ``effnetv2_keras.models`` is imported, whose layers it names.
    """

    folder = "keras"
    marker = "model.keras"

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``."""
        self.network.save(folder / self.marker)

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``."""
        model = tf.keras.models.load_model(folder / KerasExporter.marker, compile=False)
        call = tf.function(lambda images: model(images, training=False), autograph=False, reduce_retracing=True)
        return lambda images: call(tf.constant(images)).numpy()
