"""The base class of all exports: write to a temporary folder, reload, compare with the network, then rename."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from typing import Callable, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import rich.console
import rich.progress
import tensorflow as tf

from effnetv2_keras.data.pipeline import InputPlan
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.optim import losses
from effnetv2_keras.runs.trained import Trained

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

Item = TypeVar("Item")

Runtime = Callable[[Pixels], Logits]
"""A loaded export: maps pixels 0..255, uint8 ``[N, S, S, 3]`` with any N, to logits, float32 ``[N, classes]``."""

LABELS_FILE = "labels.txt"
"""File with the class names in every export, one per line, in label order."""


class ExportError(UsageError):
    """An export that failed; an existing export of that name is unchanged."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How closely an export matches its network.

    Attributes:
        largest_difference: largest difference between their logits / largest absolute logit of the network.
        same_top1: number of images, of ``num_images``, with the same top-1 class; 0 if this was not compared.
        num_images: number of images whose top-1 class was compared; 0 if this was not compared.
    """

    largest_difference: float
    same_top1: int = 0
    num_images: int = 0


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Properties of a finished export.

    Attributes:
        path: folder of the export.
        image_size: side of the images that it was made for, pixels.
        megabytes: size on disk, 10^6 bytes.
        comparison: comparison of the reloaded export with the network.
        probabilities: name of the function that makes probabilities of the logits, ``"softmax"`` or ``"sigmoid"``.
        seconds_per_image: median time for one image of ``image_size`` on the CPU, seconds.
    """

    path: pathlib.Path
    image_size: int
    megabytes: float
    comparison: Comparison
    seconds_per_image: float
    probabilities: str = "softmax"

    def describe(self) -> str:
        """Returns the report as one line."""
        same = self.comparison
        agreement = f"the same top-1 on {same.same_top1} of {same.num_images} images; " if same.num_images else ""
        return (
            f"Exported {self.path}: {self.megabytes:.1f} MB; reloaded and checked, logits differ by at most "
            f"{same.largest_difference:.1e} of the largest; {agreement}"
            f"{1000 * self.seconds_per_image:.1f} ms per image of {self.image_size} px (batch 1, CPU). "
            f"Probabilities are the {self.probabilities} of the logits."
        )


class Exporter(abc.ABC):
    """Exports to one format. To add a format, write a class with ``write`` and ``load`` and add it to ``EXPORTERS``.

    Args:
        trained: the network.
        image_size: side of the images, pixels.
        quantize: type of the stored weights, and for ``"int8"`` also of the activations.
        splits: images for ``"int8"``; None opens the data that the run's configuration names.
        trainable: whether the weights of the export can be trained further; only for a format that leaves the choice.

    Attributes:
        folder: default name of an export of this format in a run's folder.
        marker: the file by which a folder is recognized as an export of this format.
        quantizations: the values of ``quantize`` that the format supports.
        float32_only: whether a mixed-precision network is exported and compared in float32.
        can_stay_trainable: whether the format has a form with weights to train and a faster one without.
        trained: the network that the export is compared with.
        network: a model with the same weights that includes the normalization: it maps pixels 0..255 ``[N, H, W, 3]``
            to logits.

    Raises:
        ExportError: if the image size is below 1, or the format does not support the quantization or ``trainable``.
    """

    folder: ClassVar[str]
    marker: ClassVar[str]
    quantizations: ClassVar[tuple[str, ...]] = ("none",)
    float32_only: ClassVar[bool] = False
    can_stay_trainable: ClassVar[bool] = False

    def __init__(
        self,
        trained: Trained,
        image_size: int,
        *,
        quantize: str = "none",
        splits: Splits | None = None,
        trainable: bool = False,
    ) -> None:
        if image_size < 1:
            raise ExportError(f"image_size is {image_size}, but must be at least 1 pixel.")
        if quantize not in self.quantizations:
            raise ExportError(
                f"This format does not support --quantize={quantize}; it allows {', '.join(self.quantizations)}. Use "
                "--format=tflite, which allows none, float16, dynamic and int8."
            )
        if trainable and not self.can_stay_trainable:
            raise ExportError(
                "This format does not support --trainable. --format=savedmodel does, and --format=keras can always be "
                "trained further."
            )
        self.trained = rebuilt(trained, "precision.policy", "float32") if self.float32_only else trained
        self.network = rebuilt(self.trained, "model.include_preprocessing", True).model
        self.image_size, self.quantize, self._splits, self.trainable = image_size, quantize, splits, trainable

    @property
    def tolerance(self) -> float:
        """Largest allowed difference of the logits, as a fraction of the largest logit; above it, the export fails."""
        return 1e-5 if self.trained.config.precision.policy == "float32" else 2e-2  # some CPUs round 16 bits otherwise

    @abc.abstractmethod
    def write(self, folder: pathlib.Path) -> None:
        """Writes the export into an empty folder."""

    @staticmethod
    @abc.abstractmethod
    def load(folder: pathlib.Path) -> Runtime:
        """Loads an export as its user does, without access to the network that it was made from."""

    def compare(self, folder: pathlib.Path) -> Comparison:
        """Compares a written export with the network on random images of the export's size."""
        images = random_images(2, self.image_size, self.image_size)
        return Comparison(relative_difference(self.load(folder)(images), network_runtime(self.trained)(images)))

    def export(self, path: pathlib.Path, *, overwrite: bool = False) -> ExportReport:
        """Writes the export, reloads it, compares it with the network, and moves it to ``path``.

        If the export fails or is interrupted, nothing at ``path`` changes.

        Args:
            path: folder to create.
            overwrite: whether to replace an existing export of the same format.

        Raises:
            ExportError: if the folder is in use, or the logits of the reloaded export differ from the network's.
        """
        path = path.resolve()
        _check_free(path, self.marker, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
            written = pathlib.Path(staging) / "new"
            written.mkdir()
            self.write(written)
            (written / LABELS_FILE).write_text(_one_a_line(self.trained.class_names), "utf-8")
            with tf.device("/cpu:0"):  # on GPUs, the kernels of export and network may round differently
                comparison = self.compare(written)
                self._check(comparison)
                runtime, image = self.load(written), random_images(1, self.image_size, self.image_size)
                seconds = statistics.median([seconds_of(runtime, image) for _ in range(6)][1:])
            megabytes = sum(file.stat().st_size for file in written.rglob("*") if file.is_file()) / 1e6
            _put_in_place(written, path, aside=pathlib.Path(staging) / "old")
        return ExportReport(
            path,
            self.image_size,
            megabytes,
            comparison,
            seconds,
            losses.activation(self.trained.config.train.loss_type),
        )

    def _check(self, comparison: Comparison) -> None:
        if not comparison.largest_difference <= self.tolerance:  # NaN fails too
            raise ExportError(
                "Nothing was exported: the logits of the reloaded export and the network differ by "
                f"{comparison.largest_difference:.1e} of the largest logit; {self.tolerance:.0e} is allowed. Check "
                "that the network's weights are finite."
            )


def _one_a_line(class_names: Iterable[str]) -> str:
    """Returns class names one per line; in a name of an earlier version's run, a space replaces a line break."""
    return "".join(re.sub(r"[\r\n]+", " ", name) + "\n" for name in class_names)


def network_runtime(trained: Trained) -> Runtime:
    """Returns the network as evaluation runs it, to compare an export with."""
    config = trained.config
    plan = InputPlan(config.data, 1, config.input_normalization, UnreadableImages("error"))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)], autograph=False)
    def evaluate(images: tf.Tensor) -> tf.Tensor:
        return trained.model(plan.normalize(images), training=False)

    return lambda images: evaluate(tf.constant(images, tf.float32)).numpy()


def relative_difference(logits: Logits, expected: Logits) -> float:
    """Returns the largest difference of two logits / the largest expected absolute logit; NaN if any logit is NaN."""
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def random_images(count: int, height: int, width: int) -> Pixels:
    """Returns noise, uint8 ``[count, height, width, 3]``, the same in every call."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def seconds_of(runtime: Runtime, images: Pixels) -> float:
    """Returns the duration of one call, seconds."""
    start = time.perf_counter()
    runtime(images)
    return time.perf_counter() - start


def shown(items: Iterable[Item], description: str, total: int) -> Iterable[Item]:
    """Yields the items and, if standard error is a terminal, shows a progress bar there."""
    console = rich.console.Console(stderr=True)
    return rich.progress.track(
        items, description, total, console=console, transient=True, disable=not console.is_terminal
    )


def rebuilt(trained: Trained, key: str, value: object) -> Trained:
    """Returns the network with the same weights, built with another value of one setting.

    Args:
        trained: the network; it is returned itself if the setting has this value already.
        key: dotted name of the setting.
        value: its value.
    """
    config = trained.config.override({key: value})
    if config == trained.config:
        return trained
    model = build_for(config, len(trained.class_names))
    model.set_weights(trained.model.get_weights())
    return dataclasses.replace(trained, model=model, config=config)


def _check_free(path: pathlib.Path, marker: str, *, overwrite: bool) -> None:
    """Raises ``ExportError`` if ``path`` is in use; ``overwrite`` allows an existing export of the same format."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ExportError(f"{path} is a file, but an export is a folder. Choose another --export_dir.")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise ExportError(
            f"{path} is not empty. Choose another --export_dir, or give --overwrite to replace an existing export."
        )
    if not (path / marker).is_file():
        raise ExportError(
            f"{path} contains files but no {marker}, so it is not an export of this format, and --overwrite does not "
            "replace it. Choose another --export_dir."
        )


def _put_in_place(written: pathlib.Path, path: pathlib.Path, *, aside: pathlib.Path) -> None:
    """Renames a finished export to ``path``; an existing folder is moved to ``aside``, and back if renaming fails."""
    if path.exists():
        os.rename(path, aside)
    try:
        os.rename(written, path)
    except BaseException:
        if aside.exists():
            os.rename(aside, path)
        raise
