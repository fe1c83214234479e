"""A few evaluation images and what a network takes them for."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputPlan
from effnetv2_keras.data.samples import sample_records
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.optim import losses
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.trained import Which, load_trained

_MOST = 24


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image.

    Attributes:
        image: uint8 ``[S, S, 3]``, as evaluation sees it.
        true: its classes.
        predicted: the likeliest class.
        probability: of that, in [0, 1].
    """

    image: npt.NDArray[np.uint8]
    true: tuple[str, ...]
    predicted: str
    probability: float

    @property
    def correct(self) -> bool:
        """Whether the likeliest class is among its classes."""
        return self.predicted in self.true


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some images of the evaluation split.

    Attributes:
        samples: in an order that is always the same and not the split's own.
        note: which network, or why there are none.
    """

    samples: tuple[Sample, ...]
    note: str


def draw_samples(
    model: tf.keras.Model,
    source: Source,
    config: Config,
    *,
    note: str,
    count: int = _MOST,
) -> Samples:
    """Classifies some images.

    Args:
        model: gives float32 logits ``[N, classes]``.
        source: where the images come from.
        config: of the run.
        note: which network this is.
        count: images, at most; those that cannot be decoded are left out.

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
    size = config.eval.batch_size  # which fits in memory
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    logits = tf.concat([model(plan.normalize(tf.constant(part)), training=False) for part in parts], 0)
    probabilities = tf.sigmoid(losses.score(config.train.loss_type, logits)).numpy()
    samples = []
    for image, record, shares in zip(images, records, probabilities):
        labels = np.flatnonzero(record["label"].numpy())
        likeliest = int(shares.argmax())
        true = tuple(source.class_names[label] for label in labels)
        samples.append(Sample(image, true, source.class_names[likeliest], float(shares[likeliest])))
    return Samples(tuple(samples), note)


def samples_of_run(
    model_dir: str | pathlib.Path,
    *,
    which: Which = "best",
    use_ema: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Samples:
    """Classifies some images with the network in a run's folder; without data or checkpoint, says that there are none.

    Args:
        model_dir: the run's folder.
        which: the best checkpoint or the latest.
        use_ema: take the averaged weights, where there are any.
        changes: dotted settings of the data to change, such as ``{"data.data_dir": "elsewhere"}``.

    Raises:
        RunFolderError: if there is no run.
    """
    folder = RunFolder(model_dir)
    config, class_names = folder.config().override(changes or {}), folder.class_names()
    try:
        source = open_splits(config.data).evaluation
        if source.class_names != class_names:
            raise DataError(f"The data has other classes than the run: {', '.join(source.class_names[:5])} ...")
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
    """Says which weights classify the samples."""
    weights = "averaged weights" if use_ema and config.train.ema_decay else "raw weights"
    return f"Images of the evaluation split, classified with the {weights} of step {step:,}."
