"""Checkpoints: the newest few to go on from, and the best to keep."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any, Callable, Literal, Protocol

import tensorflow as tf
from absl import logging

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.runs.checkpoint_files import CheckpointFiles, checkpoint_bytes
from effnetv2_keras.runs.disk import (
    NoRoomError,
    RunFolderError,
    free_bytes,
    full_disk_explained,
    is_out_of_room,
    megabytes,
    write_atomically,
)
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.weights import load_weights

BEST_METRIC = "best.json"
_LAMB_HINT = """
TensorFlow Addons keeps LAMB's slots in another way than this package's own LAMB does; go on where Addons is, or is not,
as it was where the run began."""
Which = Literal["best", "latest"]


class CheckpointedState(Protocol):
    """The parts of a run that a checkpoint holds; ``training.state.TrainState`` has them."""

    @property
    def model(self) -> tf.keras.Model:
        """The network that is trained."""

    @property
    def ema_model(self) -> tf.keras.Model | None:
        """The moving average of its weights; None if it is off."""

    @property
    def optimizer(self) -> Any:
        """The optimizer with its slots."""

    @property
    def step(self) -> tf.Variable:
        """Finished steps, an int64 scalar."""


class Checkpoints:
    """Saves and restores the state of a run in a run's folder.

    An interrupted or failed save leaves the checkpoint before as the latest; a damaged one is set aside and the one
    before it taken. ``CheckpointFiles`` says how.

    Args:
        state: what is saved and restored.
        folder: the run's.
        keep: recent checkpoints to keep.
        is_chief: whether this process writes to the folder. Where several share a run, each must call the same
            methods, since reading some variables takes all of them; what the others write is thrown away.
        agree: gives each of them the number that the chief has.
    """

    def __init__(
        self,
        state: CheckpointedState,
        folder: RunFolder,
        *,
        keep: int,
        is_chief: bool = True,
        agree: Callable[[float], float] = float,
    ) -> None:
        self._state, self._folder, self._keep, self._is_chief = state, folder, keep, is_chief
        self._agree = agree
        parts = {"model": state.model, "optimizer": state.optimizer, "step": state.step}
        self._checkpoint = tf.train.Checkpoint(**parts, **({"ema_model": state.ema_model} if state.ema_model else {}))
        _ = self._checkpoint.save_counter  # made now, since a checkpoint is only complete with it
        self._recent = CheckpointFiles(folder / "checkpoints", keep=keep)
        self._best = CheckpointFiles(folder / "best")
        self._best_file = folder / "best" / BEST_METRIC
        # What is there is read here only: where several processes share a run, all must decide alike.
        self._best_note = _read_note(self._best_file)
        self._saved_step: int | None = None

    @property
    def _finished_steps(self) -> int:
        return int(self._state.step.numpy())

    @property
    def latest(self) -> str | None:
        """Path prefix of the newest checkpoint, or None."""
        return self._recent.prefix(self._recent.steps[0]) if self._recent.steps else None

    def restore_latest(self) -> int:
        """Restores the newest intact checkpoint, if there is any, and tidies up after a crash.

        Damaged newer ones are renamed to ``*.damaged`` and a warning says so.

        Returns:
            Finished steps; 0 for a new run.

        Raises:
            RunFolderError: if the checkpoint does not match the state, variable by variable, or all are damaged.
        """
        if self._is_chief:
            self._recent.remove_leftovers()
            self._best.remove_leftovers()
        step = _newest_intact(self._recent, self._folder)
        if step is None:
            return 0
        path = self._recent.prefix(step)
        try:
            self._checkpoint.restore(path).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            optimizer = getattr(self._state.optimizer, "inner_optimizer", self._state.optimizer)
            hint = _LAMB_HINT if type(optimizer).__name__ == "LAMB" else ""
            raise RunFolderError(f"The checkpoint {path} does not fit this run: {error}{hint}") from error
        self._forget_damaged_best()
        if self._is_chief:
            for damaged in self._recent.steps[: self._recent.steps.index(step)]:
                self._recent.move_aside(damaged)
            self._recent.prune()
            self._recent.update_state_file()
        self._saved_step = step
        if step:
            logging.info("Going on from %s, after step %d.", path, step)
        return self._finished_steps

    def _forget_damaged_best(self) -> None:
        """Lets the next evaluation count as the best if the checkpoint of the best so far cannot be read."""
        step, damages = self._best.newest_intact()
        if damages or (self._best_note and step is None):
            logging.warning("The best checkpoint of %s is lost; the next evaluation starts anew.", self._folder.path)
            self._best_note = {}
            for damaged in damages if self._is_chief else ():
                self._best.move_aside(damaged)

    def save(self) -> str:
        """Saves the state under its step, unless that is done already; returns the path prefix.

        Raises:
            NoRoomError: if the disk is full; the checkpoints before are kept.
        """
        step = self._finished_steps
        if self._saved_step != step:
            self._write(self._recent)
            self._saved_step = step
            if self._is_chief:
                self._recent.prune()
        return self._recent.prefix(step)

    def save_if_best(self, value: float, metric: str) -> bool:
        """Keeps the state in ``best/`` if no ``value`` of this metric was as high; returns whether it was kept.

        Raises:
            NoRoomError: if the disk is full; the best checkpoint before is kept.
        """
        is_best = self._best_note.get("metric") != metric or self._best_note["value"] < value
        if not self._agree(float(is_best)):
            return False
        note = {"metric": metric, "value": value, "step": self._finished_steps}
        self._write(self._best)
        if self._is_chief:
            with full_disk_explained(self._best_file):
                write_atomically(self._best_file, json.dumps(note))
            self._best.prune()
        self._best_note = note
        return True

    def _write(self, files: CheckpointFiles) -> None:
        if not self._is_chief:
            with tempfile.TemporaryDirectory() as scratch, full_disk_explained(pathlib.Path(scratch)):
                self._checkpoint.write(str(pathlib.Path(scratch) / "ckpt"))
            return
        try:
            files.write(self._checkpoint, self._finished_steps)
        except Exception as error:
            if is_out_of_room(error):
                advice = "Free some room or lower runtime.keep_checkpoint_max; the same command then goes on from there"
                raise self._no_room(self._bytes, advice) from error
            raise

    def check_room(self) -> None:
        """Makes sure that the checkpoints of a whole run will fit on the disk; changes nothing.

        They are the recent ones, the best one, and the one that is being written.

        Raises:
            NoRoomError: if they will not.
        """
        needed = max((self._keep + 2) * self._bytes - self._recent.size - self._best.size, self._bytes)
        if self._is_chief and free_bytes(self._folder.path) < needed:
            advice = "Free some room, lower runtime.keep_checkpoint_max, or choose a --model_dir on another disk"
            raise self._no_room(needed, advice)

    @property
    def _bytes(self) -> int:
        models = [model for model in (self._state.model, self._state.ema_model) if model]
        variables = [variable for model in models for variable in model.variables]
        return checkpoint_bytes([*variables, *self._state.optimizer.variables()])

    def _no_room(self, needed: int, advice: str) -> NoRoomError:
        """What to raise when there is less room than needed."""
        steps = self._recent.steps
        kept = f"The run is kept at step {steps[0]}" if steps else "No checkpoint is there yet"
        return NoRoomError(
            f"No room for checkpoints in {self._folder.path}, which keeps {self._keep} recent ones and the best: "
            f"{megabytes(needed)} are needed ({megabytes(self._bytes)} each) and "
            f"{megabytes(free_bytes(self._folder.path))} are free. {kept}. {advice}."
        )


def _read_note(path: pathlib.Path) -> dict[str, Any]:
    """What a run notes of its best checkpoint, or nothing."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logging.warning("%s cannot be read (%s); the next evaluation counts as the best.", path, error)
        return {}


def _newest_intact(files: CheckpointFiles, folder: RunFolder) -> int | None:
    """Finds the step of the newest intact checkpoint, saying which ones are not; None if there is none at all.

    Raises:
        RunFolderError: if all are damaged.
    """
    step, damages = files.newest_intact()
    listed = "; ".join(f"{files.prefix(number)}: {damage}" for number, damage in damages.items())
    if damages and step is None:
        raise RunFolderError(
            f"No checkpoint of {folder.path} can be read: {listed}. Put an intact copy back in their place, or remove "
            f"{folder / 'checkpoints'} to train from the start."
        )
    if damages and step is not None:
        logging.warning("Damaged: %s. Taking %s instead.", listed, files.prefix(step))
    return step


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what is needed to use it.

    Attributes:
        model: gives float32 logits ``[N, classes]``.
        config: of its run.
        class_names: in label order.
        step: at which it was saved.
    """

    model: tf.keras.Model
    config: Config
    class_names: tuple[str, ...]
    step: int

    @property
    def spec(self) -> specs.AnySpec:
        """The network that the configuration describes."""
        return self.config.spec


def load_trained(
    model_dir: str | pathlib.Path,
    *,
    which: Which = "best",
    use_ema: bool = True,
) -> Trained:
    """Loads the network of a run.

    Args:
        model_dir: the run's folder.
        which: the checkpoint with the best evaluation, or the latest. Without any evaluation so far, the latest.
        use_ema: take the moving average of the weights, where the run keeps one.

    Raises:
        RunFolderError: if there is no run, or it has no checkpoint yet, or the best one is damaged, or all are.
    """
    folder = RunFolder(model_dir)
    config, class_names = folder.config(), folder.class_names()
    path = _path_of(folder, which)
    model = build_for(config, len(class_names))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    role = "ema_model" if use_ema and config.train.ema_decay else "model"
    if IS_KERAS_3:  # which tracks the parts of a model under other names
        load_weights(model, path, prefer_ema=use_ema)
        status = tf.train.Checkpoint(step=step).restore(path)
    else:
        status = tf.train.Checkpoint(**{role: model, "step": step}).restore(path)
    status.assert_existing_objects_matched().expect_partial()
    return Trained(model, config, class_names, int(step.numpy()))


def _path_of(folder: RunFolder, which: Which) -> str:
    """The prefix of the checkpoint to load.

    Raises:
        RunFolderError: if there is none, or it is damaged. Of the latest, the one before is taken then.
    """
    best, recent = CheckpointFiles(folder / "best"), CheckpointFiles(folder / "checkpoints")
    if which == "best" and (best.steps or (folder / "best" / BEST_METRIC).exists()):
        step, damages = best.newest_intact()
        if damages or step is None:
            reason = "; ".join(damages.values()) or "its files are gone"
            raise RunFolderError(
                f"The best checkpoint of {folder.path} cannot be read: {reason}. Take the latest one: --weights=latest"
            )
        return best.prefix(step)
    step = _newest_intact(recent, folder)
    if step is None:
        raise RunFolderError(
            f"{folder.path} has no checkpoint yet; train first: --mode=train --model_dir={folder.path}"
        )
    return recent.prefix(step)
