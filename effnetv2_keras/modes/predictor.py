"""Loads a classifier of image files from a run or from an exported SavedModel."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.config import CONFIG_FILE
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.data.views import Views
from effnetv2_keras.errors import UsageError
from effnetv2_keras.export.exporter import rebuilt
from effnetv2_keras.export.saved_model import SAVED_MODEL_FILE, load_saved_model, squares
from effnetv2_keras.models.features import with_features
from effnetv2_keras.optim import losses
from effnetv2_keras.runs.trained import Trained, Which, load_trained

Embed = Callable[[tf.Tensor], Sequence[tf.Tensor]]


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
        embed: like ``classify``, but returns the probabilities and the features before the classifier (float32
            ``[N, d]``); None if the predictor was loaded without features.
    """

    class_names: tuple[str, ...]
    classify: Callable[[tf.Tensor], tf.Tensor]
    independent: bool = False
    embed: Embed | None = None


def load_predictor(
    path: str | os.PathLike[str],
    *,
    which: Which = "best",
    use_ema: bool = True,
    changes: Mapping[str, Any] | None = None,
    features: bool = False,
) -> Predictor:
    """Loads a predictor from the folder of a run or of an exported SavedModel.

    Args:
        path: the folder.
        which: for a run, ``"best"`` or ``"latest"`` checkpoint.
        use_ema: for a run, whether to use the moving average of the weights, if there is one.
        changes: for a run, other values of ``data.exif_orientation``, ``data.max_value`` and ``eval.tta``.
        features: for a run, whether the predictor has ``embed``.

    Raises:
        PredictError: if the folder is neither, the SavedModel was not written by ``--mode=export``, or there are
            changes, other weights or features for a SavedModel.
        ConfigError: if the value of ``eval.tta`` does not fit the settings of the run.
        RunFolderError: if the run cannot be loaded.
    """
    path = pathlib.Path(path)
    if (path / SAVED_MODEL_FILE).is_file():
        _refuse_for_saved_model(path, changes or {}, features=features, weights=which != "best" or not use_ema)
        return _load_saved_model(path)
    if not (path / CONFIG_FILE).is_file():
        raise PredictError(
            f"{path} is neither a run, because it has no {CONFIG_FILE}, nor a SavedModel, because it has no "
            f"{SAVED_MODEL_FILE}. Set --model_dir to the folder of a training run or of an export."
        )
    trained = load_trained(path, which=which, use_ema=use_ema)
    return _of_run(dataclasses.replace(trained, config=trained.config.override(changes or {})), features=features)


def _of_run(trained: Trained, *, features: bool) -> Predictor:
    config = trained.config
    loss_type = config.train.loss_type
    views = Views.of(config.eval.tta, config.data, config.eval_size)
    reading = Reading.of_photos(config.data, export=False)
    model = rebuilt(trained, "model.include_preprocessing", True).model  # which takes pixels 0..255
    network = with_features(model) if features else model

    def averaged(files: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the probabilities and, if asked for, the features, each as the mean over the views."""
        images = squares(files, views.loaded_size, views.data, reading)
        results = [network(view, training=False) for view in views.of_batch(images)]
        logits = [result[-1] for result in results] if features else results
        mean = losses.mean_logits(loss_type, tf.stack(logits)) if len(logits) > 1 else logits[0]
        seen = [tf.cast(tf.add_n([result[0] for result in results]), tf.float32) / len(results)] if features else []
        return (losses.probabilities(loss_type, mean), *seen)

    function = tf.function(averaged, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    return Predictor(
        trained.class_names,
        lambda files: function(files)[0],
        independent=losses.are_independent(loss_type),
        embed=function if features else None,
    )


def _refuse_for_saved_model(path: pathlib.Path, changes: Mapping[str, Any], *, features: bool, weights: bool) -> None:
    """Raises ``PredictError`` for what only the folder of a run can do."""
    for asked, problem in (
        (changes, f"reads images as its run did, so {', '.join(changes)} cannot be changed"),
        (features, "returns probabilities but no features, so --embeddings cannot be written"),
        (weights, "holds the weights that were exported, so --weights and --use_ema would change nothing"),
    ):
        if asked:
            raise PredictError(
                f"The SavedModel {path} {problem}. Predict with the folder of the run, or leave the setting out."
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
