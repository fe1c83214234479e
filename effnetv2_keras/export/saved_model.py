"""Exports a trained network as a SavedModel, which needs only TensorFlow and not this package.

It has four signatures: ``serving_default`` takes float pixels, ``uint8`` takes uint8 pixels, ``encoded`` takes the
bytes of image files (JPEG, PNG, GIF, and BMP with 8, 24 or 32 bits per pixel), and ``class_names`` has no input and
returns the classes in label order.
"""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.cropping import CROPPINGS
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.errors import UsageError
from effnetv2_keras.export import exporter
from effnetv2_keras.export.freezing import can_freeze, frozen
from effnetv2_keras.optim import losses

SAVED_MODEL_FILE = "saved_model.pb"
"""The file by which a folder is recognized as a SavedModel."""

_NUM_TOP = 5


def load_saved_model(folder: str | os.PathLike[str]) -> Any:
    """Returns what ``tf.saved_model.load`` returns for a folder, whatever the characters of its path.

    Raises:
        UsageError: if the SavedModel cannot be read.
    """
    try:
        with read_literally(folder) as readable:
            return tf.saved_model.load(readable)
    except (OSError, ValueError, LookupError, AttributeError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"The SavedModel in {folder} cannot be loaded: {reason}. It may be damaged or incomplete. Export it again."
        ) from error


def squares(files: tf.Tensor, image_size: int, data: DataConfig, reading: Reading) -> tf.Tensor:
    """Returns the pixels of image files, cropped as in evaluation.

    Args:
        files: bytes of the files, string ``[N]``.
        image_size: side of the result, pixels.
        data: the data settings, which determine how images are cropped and resized.
        reading: how files are read.

    Returns:
        Pixels 0..255, float32 ``[N, image_size, image_size, 3]``.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, if a file cannot be decoded or is refused.
    """
    cropping = CROPPINGS[data.pipeline]

    def load(file: tf.Tensor) -> tf.Tensor:
        return cropping.evaluate(file, image_size=image_size, crop=data.eval_crop, reading=reading)

    cropped = tf.TensorSpec([image_size, image_size, 3], cropping.dtype)
    return tf.cast(tf.map_fn(load, files, fn_output_signature=cropped), tf.float32)


class Classifier(tf.Module):
    """A trained network as a module with one function per signature.

    All functions except ``class_names`` return ``logits`` and ``probabilities`` (of ``losses.probabilities``), float32
    ``[N, classes]``, and
    ``top_classes`` (string) and ``top_probabilities`` (float32), ``[N, min(5, classes)]``, in descending order of
    probability.

    Args:
        model: maps pixels 0..255, float32 ``[N, H, W, 3]``, to logits.
        class_names: names of the classes, in label order.
        image_size: side of the squares that ``encoded`` makes of images, pixels.
        data: the data settings, which determine how ``encoded`` reads, crops and resizes.
        loss_type: loss of the training, which determines how ``probabilities`` follow from ``logits``.
        trainable: whether the weights are variables, which a gradient reaches, instead of constants, which are faster.

    Attributes:
        weights: the variables of the network if it is trainable or too large to be frozen; otherwise empty.
        independent: bool variable, whether the classes are independent, so that the probabilities need not sum to 1.
        serving_default: takes ``images``, float32 pixels 0..255 ``[N, H, W, 3]`` with any N, H and W. The model
            normalizes them.
        uint8: takes ``images``, uint8 pixels ``[N, H, W, 3]``.
        encoded: takes ``image_bytes``, JPEG, PNG, GIF or BMP files, string ``[N]``; decodes and crops them as in
            evaluation, turned upright as ``data.exif_orientation`` says. Raises ``tf.errors.InvalidArgumentError`` for
            other formats.
        class_names: has no input; returns ``class_names``, string ``[classes]``, in label order.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        class_names: tuple[str, ...],
        *,
        image_size: int,
        data: DataConfig,
        loss_type: str = "softmax",
        trainable: bool = False,
    ) -> None:
        super().__init__(name="classifier")
        # The functions use the Keras model as a closure. If it were an attribute, its layers would be saved as well.
        names = list(class_names)
        pixels = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
        variable = trainable or not can_freeze(model)
        self.weights = model.variables if variable else []
        evaluate = functools.partial(model, training=False)
        network = evaluate if variable else frozen(evaluate, pixels)
        self.image_size = tf.Variable(image_size, trainable=False)  # variables are attributes of the loaded model
        self.independent = tf.Variable(losses.are_independent(loss_type), trainable=False)

        def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
            logits = network(images)
            probabilities = losses.probabilities(loss_type, logits)
            top_probabilities, top = tf.math.top_k(probabilities, k=min(_NUM_TOP, len(names)))
            return {
                "logits": logits,
                "probabilities": probabilities,
                "top_classes": tf.gather(tf.constant(names), top),
                "top_probabilities": top_probabilities,
            }

        def classify_uint8(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.serving_default(tf.cast(images, tf.float32))

        def classify_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            reading = Reading.of_photos(data, export=True)
            return self.serving_default(squares(image_bytes, image_size, data, reading))

        def function(body: Callable[..., dict[str, tf.Tensor]], *inputs: tf.TensorSpec) -> Any:
            return tf.function(body, input_signature=inputs, autograph=False)

        self.serving_default = function(classify, pixels)
        self.uint8 = function(classify_uint8, tf.TensorSpec([None, None, None, 3], tf.uint8, name="images"))
        self.encoded = function(classify_encoded, tf.TensorSpec([None], tf.string, name="image_bytes"))
        self.class_names = function(lambda: {"class_names": tf.constant(names)})


class SavedModelExporter(exporter.Exporter):
    """Exports a SavedModel with the signatures of ``Classifier``."""

    folder = "saved_model"
    marker = SAVED_MODEL_FILE
    can_stay_trainable = True

    @property
    def tolerance(self) -> float:
        """See ``Exporter.tolerance``; folding BatchNorm into the convolutions rounds differently."""
        return super().tolerance if self.trainable else max(1e-4, super().tolerance)

    def classifier(self) -> Classifier:
        """Returns the module that ``write`` saves."""
        return Classifier(
            self.network,
            self.trained.class_names,
            image_size=self.image_size,
            data=self.trained.config.data,
            loss_type=self.trained.config.train.loss_type,
            trainable=self.trainable,
        )

    def write(self, folder: pathlib.Path) -> None:
        """See ``Exporter.write``."""
        classifier = self.classifier()
        names = ("serving_default", "uint8", "encoded", "class_names")
        # Gradients of a frozen network could not be saved, because they belong to its variables.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=bool(classifier.weights))
        signatures = {name: getattr(classifier, name) for name in names}
        tf.saved_model.save(classifier, str(folder), signatures=signatures, options=options)

    @staticmethod
    def load(folder: pathlib.Path) -> exporter.Runtime:
        """See ``Exporter.load``."""
        loaded = load_saved_model(folder)  # the lambda keeps it alive; signatures alone do not hold the weights
        return lambda images: loaded.signatures["uint8"](images=tf.constant(images))["logits"].numpy()

    def compare(self, folder: pathlib.Path) -> exporter.Comparison:
        """Compares every signature with the network on random images of two shapes."""
        loaded = load_saved_model(folder)
        size, data = self.image_size, self.trained.config.data
        evaluate = CROPPINGS[data.pipeline].evaluate
        network, differences = exporter.network_runtime(self.trained), []
        for height, width in ((size, size), (size + 16, size + 8)):
            images = exporter.random_images(2, height, width)
            files = tf.stack([tf.io.encode_png(image) for image in images])
            cropped = np.stack([evaluate(file, image_size=size, crop=data.eval_crop) for file in files])
            outputs = (
                (images, loaded.signatures["serving_default"](images=tf.constant(images, tf.float32))),
                (images, loaded.signatures["uint8"](images=tf.constant(images))),
                (cropped, loaded.signatures["encoded"](image_bytes=files)),
            )
            for seen, output in outputs:
                differences.append(exporter.relative_difference(output["logits"].numpy(), network(seen)))
        return exporter.Comparison(float(np.max(differences)))  # NaN if any is
