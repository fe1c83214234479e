"""Loads a classifier of image files from a run or from an exported SavedModel."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.config import CONFIG_FILE
from effnetv2_keras.errors import UsageError
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE, SavedModelExporter, load_saved_model
from effnetv2_keras.optim import losses
from effnetv2_keras.runs.trained import Which, load_trained


class PredictError(UsageError):
    """A predictor or an image cannot be used; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A classifier of image files.

    Attributes:
        class_names: class names in label order.
        classify: returns probabilities (float32 ``[N, classes]``) of encoded image files (string ``[N]``), with the
            preprocessing of evaluation. Raises ``tf.errors.InvalidArgumentError`` if one cannot be decoded.
        independent: whether the classes are independent, so that the probabilities of an image need not sum to 1.
    """

    class_names: tuple[str, ...]
    classify: Callable[[tf.Tensor], tf.Tensor]
    independent: bool = False


def load_predictor(
    path: str | os.PathLike[str],
    *,
    which: Which = "best",
    use_ema: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Predictor:
    """Loads a predictor from the folder of a run or of an exported SavedModel.

    Args:
        path: the folder.
        which: for a run, ``"best"`` or ``"latest"`` checkpoint.
        use_ema: for a run, whether to use the moving average of the weights, if there is one.
        changes: for a run, other values of ``data.exif_orientation`` and ``data.max_value``.

    Raises:
        PredictError: if the folder is neither, the SavedModel was not written by ``--mode=export``, or there are
            changes for a SavedModel.
        RunFolderError: if the run cannot be loaded.
    """
    path = pathlib.Path(path)
    if (path / SAVED_MODEL_FILE).is_file():
        if changes:
            raise PredictError(
                f"The SavedModel {path} reads images as its run did, so {', '.join(changes)} cannot be changed. "
                "Predict with the folder of the run, or leave the setting out."
            )
        return _load_saved_model(path)
    if not (path / CONFIG_FILE).is_file():
        raise PredictError(
            f"{path} is neither a run, because it has no {CONFIG_FILE}, nor a SavedModel, because it has no "
            f"{SAVED_MODEL_FILE}. Set --model_dir to the folder of a training run or of an export."
        )
    trained = load_trained(path, which=which, use_ema=use_ema)
    trained = dataclasses.replace(trained, config=trained.config.override(changes or {}))
    classifier = SavedModelExporter(trained, trained.config.eval_size).classifier(export=False)
    return Predictor(
        trained.class_names,
        lambda files: classifier.encoded(files)["probabilities"],
        independent=losses.are_independent(trained.config.train.loss_type),
    )


def _load_saved_model(path: pathlib.Path) -> Predictor:
    try:
        loaded = load_saved_model(path)
    except UsageError as error:
        raise PredictError(str(error)) from error
    missing = {"encoded", "class_names"} - set(loaded.signatures)
    if missing:
        raise PredictError(
            f"The SavedModel {path} has the signatures {sorted(loaded.signatures)} and lacks {sorted(missing)}. "
            "Use a SavedModel that --mode=export wrote."
        )
    names = loaded.signatures["class_names"]()["class_names"].numpy()
    return Predictor(
        tuple(name.decode() for name in names),
        lambda files: loaded.signatures["encoded"](image_bytes=files)["probabilities"],
        independent=bool(getattr(loaded, "independent", False)),  # earlier versions wrote softmax probabilities
    )
