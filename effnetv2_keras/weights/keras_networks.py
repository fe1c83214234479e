"""Loads Keras' own weights into the networks of ``tf.keras.applications`` that ``build_keras_model`` builds."""

from __future__ import annotations

import dataclasses
import pathlib
import time

import tensorflow as tf
from absl import logging

from effnetv2_keras.architecture import keras_inputs
from effnetv2_keras.models.keras_models import application
from effnetv2_keras.models.naming import layers_by_name, variable_names
from effnetv2_keras.models.rebuilding import rebuild
from effnetv2_keras.weights import download, registry
from effnetv2_keras.weights.report import Mismatch, WeightReport, WeightsError

_FOLDER = pathlib.Path("~/.keras/models")
"""Where Keras keeps downloaded files."""

_NO_CONNECTION = "URL fetch failure"
"""Beginning of Keras' message if a download fails; it names the address."""


def load_keras_weights(model: tf.keras.Model, name: str, normalization: str) -> WeightReport:
    """Loads the weights that ``weights="imagenet"`` of a function of ``tf.keras.applications`` loads.

    Everything but a classifier for other classes is loaded, also layers of Keras' top that precede the classifier.

    Args:
        model: a model of ``build_keras_model``.
        name: name of the function, such as ``"ResNet50"``.
        normalization: how pixels become network input; a warning says so if it is not that of the weights.

    Returns:
        Which weights were loaded, and whether the classifier was.

    Raises:
        WeightsError: if Keras cannot download the file; the message says where to put it.
    """
    made = _with_weights(name)
    flat = tf.keras.Model(made.inputs, made.outputs[0], name=name)
    own = keras_inputs.NORMALIZATION.get(name)
    report = copy_weights(rebuild(flat, bn_momentum=0.99, dtype="float32"), model, bgr=own == "caffe")
    if own and normalization != own:
        warning = f"These weights are for model.normalization={own}, but it is {normalization}."
        logging.warning("%s", warning)
        report = dataclasses.replace(report, warnings=(warning,))
    return report


def copy_weights(source: tf.keras.Model, model: tf.keras.Model, *, bgr: bool) -> WeightReport:
    """Copies the weights of layers of the same name; the last layer of ``source`` with weights may have another shape.

    Args:
        source: a network from ``rebuild``.
        model: the same network with another number of classes, perhaps inside a model that normalizes pixels.
        bgr: whether ``source`` takes images as B, G, R; the first kernel is reversed then, and ``model`` takes R, G, B.
    """
    theirs, ours = layers_by_name(source), layers_by_name(model)
    names = [name for name, layer in theirs.items() if layer.weights]
    loaded: list[str] = []
    mismatched: tuple[Mismatch, ...] = ()
    for name in names:
        values = theirs[name].get_weights()
        if bgr and name == names[0]:
            values[0] = values[0][:, :, ::-1]
        parts = variable_names({name: ours[name]})
        compared = tuple(
            Mismatch(parts[id(weight)], value.shape, tuple(weight.shape))
            for value, weight in zip(values, ours[name].weights)
        )
        if name == names[-1] and any(part.in_file != part.in_model for part in compared):
            mismatched = compared
            continue
        ours[name].set_weights(values)
        loaded += [part.name for part in compared]
    return WeightReport(f"tf.keras.applications.{source.name}, 'imagenet'", tuple(loaded), mismatched=mismatched)


def _with_weights(name: str) -> tf.keras.Model:
    """Returns the model of Keras with its weights; tries again if the download fails."""
    for attempt in range(1, download.ATTEMPTS + 1):
        try:
            return application(name, 1000, "imagenet")
        except Exception as error:  # the type that Keras raises
            if _NO_CONNECTION not in str(error):
                raise
            if attempt == download.ATTEMPTS:
                raise WeightsError(
                    f"Cannot download the weights of {name}. {error}. Keras looked for the file of that address in "
                    f"{_FOLDER.expanduser()}. Check the connection; or download it elsewhere and put it into that "
                    f"folder. {registry.FROM_SCRATCH}"
                ) from error
            logging.warning("%s. Trying again in %g s.", error, download.FIRST_PAUSE * 2 ** (attempt - 1))
            time.sleep(download.FIRST_PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")
