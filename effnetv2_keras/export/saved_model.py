"""Writes a trained network as a SavedModel that runs wherever TensorFlow does, without this package.

Three signatures: ``serving_default`` takes pixels, ``encoded`` takes JPEG or PNG files as they are, and ``class_names``
takes nothing and gives the classes in label order.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras import specs
from effnetv2_keras.data import decode
from effnetv2_keras.data.pipeline import InputPlan, UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.training.checkpoints import Trained

SAVED_MODEL_FILE = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

_NUM_TOP = 5
_TOLERANCE = 1e-5


class ExportError(UsageError):
    """An export that cannot be made; what was under its name is still there."""


class Classifier(tf.Module):
    """A trained network from images to named classes; what ``export_saved_model`` writes.

    Both ``serving_default`` and ``encoded`` return ``logits`` and ``probabilities``, float32 ``[N, classes]``, and
    ``top_classes`` (string) and ``top_probabilities`` (float32), ``[N, min(5, classes)]``, the likeliest first.

    Args:
        trained: the network.
        image_size: side to which ``encoded`` brings images, pixels.

    Attributes:
        serving_default: float32 pixels 0..255 ``[N, H, W, 3]``, any N, H and W; normalised inside.
        encoded: JPEG, PNG, GIF or BMP files, string ``[N]``; decoded and cropped just as evaluation does.
        class_names: no input; ``class_names``, string ``[classes]``, in label order.
    """

    def __init__(self, trained: Trained, image_size: int) -> None:
        super().__init__(name="classifier")
        # The functions see the Keras model as a closure; as an attribute, its layers would be written one by one too.
        model, names = trained.model, list(trained.class_names)
        normalization = None if trained.config.model.include_preprocessing else trained.spec.normalization
        self.weights = model.variables

        def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
            if normalization:
                mean, deviation = specs.PIXEL_STATISTICS[normalization]
                images = (images - tf.constant(mean)) / tf.constant(deviation)
            logits = model(images, training=False)
            probabilities = tf.nn.softmax(logits)
            top_probabilities, top = tf.math.top_k(probabilities, k=min(_NUM_TOP, len(names)))
            return {
                "logits": logits,
                "probabilities": probabilities,
                "top_classes": tf.gather(tf.constant(names), top),
                "top_probabilities": top_probabilities,
            }

        def load(image_bytes: tf.Tensor) -> tf.Tensor:
            return decode.central_crop(image_bytes, image_size=image_size, crop=trained.config.data.eval_crop)

        def classify_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            cropped = tf.TensorSpec([image_size, image_size, 3], tf.uint8)
            pixels = tf.map_fn(load, image_bytes, fn_output_signature=cropped)
            return self.serving_default(tf.cast(pixels, tf.float32))

        def function(body: Callable[..., dict[str, tf.Tensor]], *inputs: tf.TensorSpec) -> Any:
            return tf.function(body, input_signature=inputs, autograph=False)

        self.serving_default = function(classify, tf.TensorSpec([None, None, None, 3], tf.float32, name="images"))
        self.encoded = function(classify_encoded, tf.TensorSpec([None], tf.string, name="image_bytes"))
        self.class_names = function(lambda: {"class_names": tf.constant(names)})


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it does.

    Attributes:
        path: the SavedModel's folder.
        image_size: side to which ``encoded`` brings images, pixels.
        megabytes: size on disk, 10^6 bytes.
        largest_difference: between the logits of the reloaded SavedModel and of the network, over the largest logit.
        seconds_per_image: median time of ``serving_default`` for one image of ``image_size``, on the CPU.
    """

    path: pathlib.Path
    image_size: int
    megabytes: float
    largest_difference: float
    seconds_per_image: float

    def describe(self) -> str:
        """The report as one line."""
        return (
            f"Exported {self.path}: {self.megabytes:.1f} MB; reloaded and checked, logits differ by at most "
            f"{self.largest_difference:.1e} of the largest; {1000 * self.seconds_per_image:.1f} ms per image of "
            f"{self.image_size} px (batch 1, CPU)."
        )


def export_saved_model(
    trained: Trained, path: str | os.PathLike[str], *, image_size: int | None = None, overwrite: bool = False
) -> ExportReport:
    """Writes a network as a SavedModel with the signatures of ``Classifier``.

    It is written beside its place, reloaded, compared with the network, and only then given its name, so that a
    failed or interrupted export leaves what was there.

    Args:
        trained: the network.
        path: folder to make.
        image_size: side to which the signature ``encoded`` brings images, pixels; None: the run's evaluation size.
        overwrite: replace a SavedModel that is there.

    Raises:
        ExportError: if the size is not positive, the folder is taken, or the reloaded SavedModel gives other logits.
    """
    image_size = trained.config.eval_size if image_size is None else image_size
    if image_size < 1:
        raise ExportError(f"image_size is {image_size}; it must be at least 1 pixel.")
    path = pathlib.Path(path).resolve()
    _check_free(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
        written = pathlib.Path(staging) / "new"
        classifier = Classifier(trained, image_size)
        signatures = {name: getattr(classifier, name) for name in ("serving_default", "encoded", "class_names")}
        tf.saved_model.save(classifier, str(written), signatures=signatures)
        with tf.device("/cpu:0"):  # where both compute alike; GPUs round differently from one kernel to the next
            reloaded = tf.saved_model.load(str(written))
            difference = _check_logits(reloaded, trained, image_size)
            seconds = _seconds_per_image(reloaded, image_size)
        megabytes = sum(file.stat().st_size for file in written.rglob("*") if file.is_file()) / 1e6
        _put_in_place(written, path, aside=pathlib.Path(staging) / "old")
    return ExportReport(path, image_size, megabytes, difference, seconds)


def _check_free(path: pathlib.Path, *, overwrite: bool) -> None:
    """Makes sure that nothing but a SavedModel, and that only on request, will be replaced."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ExportError(f"{path} is a file; an export is a folder. Choose another --export_dir.")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise ExportError(f"{path} is not empty. Choose another --export_dir, or replace a SavedModel by --overwrite.")
    if not (path / SAVED_MODEL_FILE).is_file():
        raise ExportError(
            f"{path} holds files but no {SAVED_MODEL_FILE}, so it is no SavedModel and --overwrite does not replace "
            "it. Choose another --export_dir."
        )


def _put_in_place(written: pathlib.Path, path: pathlib.Path, *, aside: pathlib.Path) -> None:
    """Gives a finished folder its name; the one that had it goes aside, and comes back if that fails."""
    if path.exists():
        os.rename(path, aside)
    try:
        os.rename(written, path)
    except BaseException:
        if aside.exists():
            os.rename(aside, path)
        raise


def _check_logits(reloaded: Any, trained: Trained, image_size: int) -> float:
    """Compares a loaded SavedModel with the network as evaluation runs it, on random images of two shapes.

    Returns:
        The largest difference between two logits, over the largest logit.

    Raises:
        ExportError: if it exceeds 1e-5.
    """
    config = trained.config
    normalization = None if config.model.include_preprocessing else trained.spec.normalization
    evaluation = InputPlan(config.data, 1, normalization, UnreadableImages("error"))
    random = np.random.default_rng(0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False)
    def evaluate(images: tf.Tensor) -> tf.Tensor:
        return trained.model(evaluation.normalize(images), training=False)

    def difference(outputs: dict[str, tf.Tensor], images: tf.Tensor) -> float:
        expected = np.asarray(evaluate(images))
        return float(np.abs(outputs["logits"] - expected).max() / np.abs(expected).max())

    differences = []
    for height, width in ((image_size, image_size), (image_size + 16, image_size + 8)):
        images = tf.constant(random.integers(0, 256, (2, height, width, 3)), tf.uint8)
        files = tf.stack([tf.io.encode_png(image) for image in images])
        cropped = [decode.central_crop(file, image_size=image_size, crop=config.data.eval_crop) for file in files]
        from_pixels = reloaded.signatures["serving_default"](images=tf.cast(images, tf.float32))
        from_files = reloaded.signatures["encoded"](image_bytes=files)
        differences += [difference(from_pixels, images), difference(from_files, tf.stack(cropped))]
    largest = float(np.max(differences))  # NaN if any is
    if not largest <= _TOLERANCE:
        raise ExportError(
            f"The reloaded SavedModel and the network differ by {largest:.1e} of the largest logit; {_TOLERANCE:.0e} "
            "is allowed, so nothing was exported. Are the network's weights finite?"
        )
    return largest


def _seconds_per_image(reloaded: Any, image_size: int) -> float:
    """Times ``serving_default`` on one image: the median of five runs after a first one."""
    image = tf.random.uniform([1, image_size, image_size, 3], maxval=255.0)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        np.asarray(reloaded.signatures["serving_default"](images=image)["logits"])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
