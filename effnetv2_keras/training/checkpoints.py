"""Checkpoints: the newest few to go on from, and the best to keep."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Literal

import tensorflow as tf
from absl import logging

from effnetv2_keras import specs
from effnetv2_keras.config import Config
from effnetv2_keras.training.run_folder import RunFolder, RunFolderError, write_atomically
from effnetv2_keras.training.state import TrainState, build_for

BEST_METRIC = "best.json"
Which = Literal["best", "latest"]


class Checkpoints:
    """Saves and restores a ``TrainState`` in a run's folder.

    TensorFlow writes a checkpoint's data aside, renames it and only then names it in the ``checkpoint`` file, so an
    interrupted save leaves the one before as the latest.

    Args:
        state: what is saved and restored.
        folder: the run's.
        keep: recent checkpoints to keep.
    """

    def __init__(self, state: TrainState, folder: RunFolder, *, keep: int, is_chief: bool = True) -> None:
        self._state, self._best_file = state, folder / "best" / BEST_METRIC
        parts = {"model": state.model, "optimizer": state.optimizer, "step": state.step}
        self._checkpoint = tf.train.Checkpoint(**parts, **({"ema_model": state.ema_model} if state.ema_model else {}))
        self._recent = tf.train.CheckpointManager(self._checkpoint, str(folder / "checkpoints"), max_to_keep=keep)
        self._best = tf.train.CheckpointManager(self._checkpoint, str(folder / "best"), max_to_keep=1)

    @property
    def latest(self) -> str | None:
        """Path prefix of the newest checkpoint, or None."""
        return self._recent.latest_checkpoint

    def restore_latest(self) -> int:
        """Restores the newest checkpoint, if there is one.

        Returns:
            Finished steps; 0 for a new run.

        Raises:
            RunFolderError: if the checkpoint does not match the state, variable by variable.
        """
        if not self.latest:
            return 0
        try:
            self._checkpoint.restore(self.latest).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise RunFolderError(f"The checkpoint {self.latest} does not fit this run: {error}") from error
        step = self._state.finished_steps
        logging.info("Going on from %s, after step %d.", self.latest, step)
        return step

    def save(self) -> str:
        """Saves the state under its step, unless that is done already; returns the path prefix."""
        step = self._state.finished_steps
        if self.latest and self.latest.endswith(f"-{step}"):
            return self.latest
        return self._recent.save(checkpoint_number=step)

    def save_if_best(self, value: float, metric: str) -> bool:
        """Keeps the state in ``best/`` if no ``value`` of this metric was as high; returns whether it was kept."""
        best = json.loads(self._best_file.read_text()) if self._best_file.exists() else {}
        if best.get("metric") == metric and best["value"] >= value:
            return False
        self._best.save(checkpoint_number=self._state.finished_steps)
        note = {"metric": metric, "value": value, "step": self._state.finished_steps}
        write_atomically(self._best_file, json.dumps(note))
        return True


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what is needed to use it.

    Attributes:
        model: gives float32 logits ``[N, classes]``.
        config: of its run.
        class_names: in label order.
        step: at which it was saved.
        spec: of the network.
    """

    model: tf.keras.Model
    config: Config
    class_names: tuple[str, ...]
    step: int
    spec: specs.ModelSpec


def load_trained(
    model_dir: str | pathlib.Path,
    *,
    which: Which = "best",
    use_ema: bool = True,
    spec: specs.ModelSpec | None = None,
) -> Trained:
    """Loads the network of a run.

    Args:
        model_dir: the run's folder.
        which: the checkpoint with the best evaluation, or the latest. Without any evaluation so far, the latest.
        use_ema: take the moving average of the weights, where the run keeps one.
        spec: a network other than the one that the configuration names.

    Raises:
        RunFolderError: if there is no run, or it has no checkpoint yet.
    """
    folder = RunFolder(model_dir)
    config, class_names = folder.config(), folder.class_names()
    places = ("best", "checkpoints") if which == "best" else ("checkpoints",)
    path = next(filter(None, (tf.train.latest_checkpoint(str(folder / place)) for place in places)), None)
    if path is None:
        raise RunFolderError(
            f"{folder.path} has no checkpoint yet; train first: --mode=train --model_dir={folder.path}"
        )
    spec = spec or config.spec
    model = build_for(config, spec, len(class_names))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    role = "ema_model" if use_ema and config.train.ema_decay else "model"
    status = tf.train.Checkpoint(**{role: model, "step": step}).restore(path)
    status.assert_existing_objects_matched().expect_partial()
    return Trained(model, config, class_names, int(step.numpy()), spec)
