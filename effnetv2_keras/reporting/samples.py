"""A few evaluation images with the predictions of a network, for the report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Callable

import matplotlib
import numpy as np
import numpy.typing as npt
import PIL.Image
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan
from effnetv2_keras.data.samples import sample_records
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.gradcam import GradCam
from effnetv2_keras.optim import losses
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import Which, load_trained

_MOST = 24


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and its prediction.

    Attributes:
        image: uint8 ``[S, S, 3]``, cropped as in evaluation.
        true: true classes.
        predicted: most likely class.
        probability: probability of that class, in [0, 1].
        overlay: the image, uint8 ``[S, S, 3]``, on which the parts that support the most likely class are colored;
            None if the network gives no such parts.
    """

    image: npt.NDArray[np.uint8]
    true: tuple[str, ...]
    predicted: str
    probability: float
    overlay: npt.NDArray[np.uint8] | None = None

    @property
    def correct(self) -> bool:
        """Whether the most likely class is a true class."""
        return self.predicted in self.true


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some images of the evaluation split.

    Attributes:
        samples: the images, in a fixed order that is not the order of the split.
        note: which weights classified them, or why there are no images.
    """

    samples: tuple[Sample, ...]
    note: str


def samples_of_training(
    models: Mapping[str, tf.keras.Model], source: Source, config: Config, step: int, replicas: int
) -> Samples:
    """Returns the samples for the report at the end of training, or the reason why there are none.

    Args:
        models: networks that return float32 logits ``[N, classes]``; the last one is used, which is the moving average
            if there is one.
        source: evaluation split.
        config: configuration of the run.
        step: number of finished steps of the checkpoint with these weights.
        replicas: as for ``draw_samples``.
    """
    *_, model = models.values()
    try:
        return draw_samples(model, source, config, note=describe_network(config, step), replicas=replicas)
    except (DataError, tf.errors.ResourceExhaustedError) as error:  # samples are optional
        return Samples((), str(error))


def draw_samples(
    model: tf.keras.Model,
    source: Source,
    config: Config,
    *,
    note: str,
    count: int = _MOST,
    replicas: int = 1,
) -> Samples:
    """Classifies a few images and returns them with the predictions.

    Args:
        model: network that returns float32 logits ``[N, classes]``.
        source: evaluation split.
        config: configuration of the run.
        note: which weights the model has, for ``Samples.note``.
        count: largest number of images; images that cannot be decoded are left out.
        replicas: number of replicas over which ``eval.batch_size`` is divided; this function runs on one of them.

    Raises:
        DataError: if the data cannot be read.
    """
    unreadable = UnreadableImages("skip")
    with unreadable.explained(source):
        records = list(sample_records(source, config.data, image_size=config.eval_size, count=count))
    if not records:
        return Samples((), "No evaluation image could be decoded.")
    images = np.stack([record["image"].numpy() for record in records])
    plan = InputPlan(config.data, count, config.input_normalization, unreadable)
    size = config.eval_batch_size(replicas) // replicas  # which fits in memory
    logits, overlays = explain(model, images, plan.normalize, batch_size=size)
    probabilities = losses.probabilities(config.train.loss_type, logits).numpy()
    samples = []
    for image, record, shares, overlay in zip(images, records, probabilities, overlays):
        labels = np.flatnonzero(record["label"].numpy())
        likeliest = int(shares.argmax())
        true = tuple(source.class_names[label] for label in labels)
        samples.append(Sample(image, true, source.class_names[likeliest], float(shares[likeliest]), overlay))
    return Samples(tuple(samples), note)


def explain(
    model: tf.keras.Model,
    images: npt.NDArray[np.uint8],
    normalize: Callable[[tf.Tensor], tf.Tensor],
    *,
    batch_size: int,
) -> tuple[tf.Tensor, list[npt.NDArray[np.uint8] | None]]:
    """Returns the logits of some images, and the images with the parts colored that support the most likely class.

    Args:
        model: network that returns float32 logits ``[N, classes]``.
        images: ``[N, S, S, 3]``, uint8.
        normalize: makes network input of pixels in 0..255.
        batch_size: number of images that fit in memory.

    Returns:
        Logits ``[N, classes]`` and N images, uint8 ``[S, S, 3]``; see ``GradCam``. An image is None if the network has
        no feature map that is pooled.
    """
    network = GradCam(model)
    parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    answers = [network(normalize(tf.constant(part))) for part in parts]
    maps = [heat for _, of_part in answers if of_part is not None for heat in of_part.numpy()]
    overlays: list[npt.NDArray[np.uint8] | None] = [_colored(image, heat) for image, heat in zip(images, maps)]
    return tf.concat([logits for logits, _ in answers], 0), overlays or [None] * len(images)


def _colored(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns an image with a map laid over it, from transparent (0) to strongly colored (1)."""
    resized = PIL.Image.fromarray(heat).resize((image.shape[1], image.shape[0]), PIL.Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(resized), 0, 1)
    color = 255 * matplotlib.colormaps["turbo"](strength)[..., :3]
    share = 0.6 * strength[..., np.newaxis]
    return ((1 - share) * image + share * color).astype(np.uint8)


def samples_of_run(
    model_dir: str | pathlib.Path,
    *,
    which: Which = "best",
    use_ema: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Samples:
    """Classifies a few evaluation images with the network of a run, and returns them with the predictions.

    Without data or checkpoint, the result has no images, and its note gives the reason.

    Args:
        model_dir: folder of the run.
        which: ``"best"`` or ``"latest"`` checkpoint.
        use_ema: whether to use the moving average of the weights, if the run has one.
        changes: data settings to change by dotted name, such as ``{"data.data_dir": "elsewhere"}``.

    Raises:
        RunFolderError: if the folder contains no run.
    """
    folder = RunFolder(model_dir)
    config, class_names = folder.config().override(changes or {}), folder.class_names()
    try:
        source = open_splits(config.data).evaluation
        if source.class_names != class_names:
            raise DataError(
                f"The data has other classes than the run: {', '.join(source.class_names[:5])} ... Set --data_dir to "
                "the data of the run."
            )
        trained = load_trained(model_dir, which=which, use_ema=use_ema)
        return draw_samples(
            trained.model,
            source,
            config,
            note=describe_network(config, trained.step, use_ema=use_ema),
        )
    except UsageError as error:
        return Samples((), f"There are no samples. {error}")


def describe_network(config: Config, step: int, *, use_ema: bool = True) -> str:
    """Returns a sentence that says which weights classified the samples."""
    weights = "moving average of the weights" if use_ema and config.train.ema_decay else "raw weights"
    return f"Images of the evaluation split, classified with the {weights} at step {step:,}."
