"""What every export has in common: written aside, reloaded, compared with its network, and only then given its name."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
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
from effnetv2_keras.runs.trained import Trained

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

Item = TypeVar("Item")

Runtime = Callable[[Pixels], Logits]
"""A loaded export: pixels 0..255 ``[N, S, S, 3]``, any N, to logits ``[N, classes]``."""

LABELS_FILE = "labels.txt"
"""The class names beside every export, one a line, in label order."""


class ExportError(UsageError):
    """An export that cannot be made; what was under its name is still there."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How an export does beside the network that it came from.

    Attributes:
        largest_difference: between their logits, over the network's largest logit.
        same_top1: images that both give the same class, of ``num_images``; 0 of 0 where that was not asked.
        num_images: see ``same_top1``.
    """

    largest_difference: float
    same_top1: int = 0
    num_images: int = 0


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it does.

    Attributes:
        path: the export's folder.
        image_size: side of the images that it was made for, pixels.
        megabytes: size on disk, 10^6 bytes.
        comparison: with the network, after reloading.
        seconds_per_image: median time for one image of ``image_size``, on the CPU.
    """

    path: pathlib.Path
    image_size: int
    megabytes: float
    comparison: Comparison
    seconds_per_image: float

    def describe(self) -> str:
        """The report as one line."""
        same = self.comparison
        agreement = f"the same top-1 on {same.same_top1} of {same.num_images} images; " if same.num_images else ""
        return (
            f"Exported {self.path}: {self.megabytes:.1f} MB; reloaded and checked, logits differ by at most "
            f"{same.largest_difference:.1e} of the largest; {agreement}"
            f"{1000 * self.seconds_per_image:.1f} ms per image of {self.image_size} px (batch 1, CPU)."
        )


class Exporter(abc.ABC):
    """One format. A new one is a class with ``write`` and ``load``, and a line in ``EXPORTERS``.

    Args:
        trained: the network.
        image_size: side of the images, pixels.
        quantize: how weights, and for ``"int8"`` activations, are stored.
        splits: where ``"int8"`` takes images from; None opens what the run's configuration names.

    Attributes:
        folder: name of an export of this format in a run's folder.
        marker: the file that makes a folder an export of this format.
        quantizations: those that the format knows.
        float32_only: whether a network of mixed precision is exported, and compared, in float32.
        trained: the network that the export is compared with.
        network: the same weights, with the normalisation inside: pixels 0..255 ``[N, H, W, 3]`` to logits.

    Raises:
        ExportError: for an image size below 1, or a quantization that the format does not know.
    """

    folder: ClassVar[str]
    marker: ClassVar[str]
    quantizations: ClassVar[tuple[str, ...]] = ("none",)
    float32_only: ClassVar[bool] = False

    def __init__(
        self, trained: Trained, image_size: int, *, quantize: str = "none", splits: Splits | None = None
    ) -> None:
        if image_size < 1:
            raise ExportError(f"image_size is {image_size}; it must be at least 1 pixel.")
        if quantize not in self.quantizations:
            raise ExportError(
                f"--quantize={quantize} is not for this format, which allows {', '.join(self.quantizations)}; "
                "--format=tflite allows none, float16, dynamic and int8."
            )
        self.trained = _rebuilt(trained, "precision.policy", "float32") if self.float32_only else trained
        self.network = _rebuilt(self.trained, "model.include_preprocessing", True).model
        self.image_size, self.quantize, self._splits = image_size, quantize, splits

    @property
    def tolerance(self) -> float:
        """The difference of logits, over the largest, above which nothing is exported."""
        return 1e-5

    @abc.abstractmethod
    def write(self, folder: pathlib.Path) -> None:
        """Writes the export into an empty folder."""

    @staticmethod
    @abc.abstractmethod
    def load(folder: pathlib.Path) -> Runtime:
        """Loads an export where it will be used: nothing of the network that it came from is at hand."""

    def compare(self, folder: pathlib.Path) -> Comparison:
        """Compares a written export with the network, on random images of the export's size."""
        images = random_images(2, self.image_size, self.image_size)
        return Comparison(relative_difference(self.load(folder)(images), network_runtime(self.trained)(images)))

    def export(self, path: pathlib.Path, *, overwrite: bool = False) -> ExportReport:
        """Writes, reloads, compares, and gives the export its name; one that fails or is interrupted changes nothing.

        Args:
            path: folder to make.
            overwrite: replace an export of the same format that is there.

        Raises:
            ExportError: if the folder is taken, or the reloaded export gives other logits than the network.
        """
        path = path.resolve()
        _check_free(path, self.marker, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
            written = pathlib.Path(staging) / "new"
            written.mkdir()
            self.write(written)
            (written / LABELS_FILE).write_text("".join(f"{name}\n" for name in self.trained.class_names), "utf-8")
            with tf.device("/cpu:0"):  # where both compute alike; GPUs round differently from one kernel to the next
                comparison = self.compare(written)
                self._check(comparison)
                runtime, image = self.load(written), random_images(1, self.image_size, self.image_size)
                seconds = statistics.median([seconds_of(runtime, image) for _ in range(6)][1:])
            megabytes = sum(file.stat().st_size for file in written.rglob("*") if file.is_file()) / 1e6
            _put_in_place(written, path, aside=pathlib.Path(staging) / "old")
        return ExportReport(path, self.image_size, megabytes, comparison, seconds)

    def _check(self, comparison: Comparison) -> None:
        if not comparison.largest_difference <= self.tolerance:  # NaN fails too
            raise ExportError(
                f"The reloaded export and the network differ by {comparison.largest_difference:.1e} of the largest "
                f"logit; {self.tolerance:.0e} is allowed, so nothing was exported. Are the network's weights finite?"
            )


def network_runtime(trained: Trained) -> Runtime:
    """The network as evaluation runs it, to compare an export with."""
    config = trained.config
    plan = InputPlan(config.data, 1, config.input_normalization, UnreadableImages("error"))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)], autograph=False)
    def evaluate(images: tf.Tensor) -> tf.Tensor:
        return trained.model(plan.normalize(images), training=False)

    return lambda images: evaluate(tf.constant(images, tf.float32)).numpy()


def relative_difference(logits: Logits, expected: Logits) -> float:
    """The largest difference of two logits, over the largest expected; NaN if any is."""
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def random_images(count: int, height: int, width: int) -> Pixels:
    """Noise, uint8 ``[count, height, width, 3]``, always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def seconds_of(runtime: Runtime, images: Pixels) -> float:
    """Times one call."""
    start = time.perf_counter()
    runtime(images)
    return time.perf_counter() - start


def shown(items: Iterable[Item], description: str, total: int) -> Iterable[Item]:
    """Passes items on and shows how many have gone and how long the rest will take, on standard error if a terminal."""
    console = rich.console.Console(stderr=True)
    return rich.progress.track(
        items, description, total, console=console, transient=True, disable=not console.is_terminal
    )


def _rebuilt(trained: Trained, key: str, value: object) -> Trained:
    """The same weights under another setting of the configuration."""
    config = trained.config.override({key: value})
    if config == trained.config:
        return trained
    model = build_for(config, len(trained.class_names))
    model.set_weights(trained.model.get_weights())
    return dataclasses.replace(trained, model=model, config=config)


def _check_free(path: pathlib.Path, marker: str, *, overwrite: bool) -> None:
    """Makes sure that nothing but an export of the same format, and that only on request, will be replaced."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ExportError(f"{path} is a file; an export is a folder. Choose another --export_dir.")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise ExportError(f"{path} is not empty. Choose another --export_dir, or replace an export by --overwrite.")
    if not (path / marker).is_file():
        raise ExportError(
            f"{path} holds files but no {marker}, so it is no export of this format and --overwrite does not replace "
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
