"""Saving, restoring and loading of a run's checkpoints: the newest ones, to resume from, and the best one."""

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import Any, Callable, Protocol

import tensorflow as tf
from absl import logging

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

BEST_METRIC = "best.json"
_LAMB_HINT = """
LAMB from TensorFlow Addons stores its slots differently from the LAMB of this package. Resume in an environment that
matches the one in which the run began: with TensorFlow Addons if it was installed there, without it if it was not."""


class CheckpointedState(Protocol):
    """The parts of a run that a checkpoint holds; ``training.state.TrainState`` implements this protocol."""

    @property
    def model(self) -> tf.keras.Model:
        """The network in training."""

    @property
    def ema_model(self) -> tf.keras.Model | None:
        """A network with the moving average of the weights; None if the average is off."""

    @property
    def optimizer(self) -> Any:
        """The optimizer with its slots."""

    @property
    def step(self) -> tf.Variable:
        """The number of finished steps, an int64 scalar."""


class Checkpoints:
    """Saves and restores the state of a run in the folder of the run.

    If a save is interrupted or fails, the checkpoint before it stays the latest. Damaged checkpoints are renamed, and
    the newest intact one is used instead; see ``CheckpointFiles``.

    Args:
        state: the state to save and restore.
        folder: folder of the run.
        keep: number of recent checkpoints to keep.
        is_chief: whether this process writes to the folder. If several processes share a run, each must call the same
            methods, because reading some variables needs all processes; what the others write is discarded.
        agree: function that gives every process the number which the chief passes to it.
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
        _ = self._checkpoint.save_counter  # creates the counter, without which a checkpoint is incomplete
        self._recent = CheckpointFiles(folder / "checkpoints", keep=keep)
        self._best = CheckpointFiles(folder / "best")
        self._best_file = folder / "best" / BEST_METRIC
        # Read once, here: processes that share a run must all decide from the same value.
        self._best_note = _read_note(self._best_file)
        self._saved_step: int | None = None

    @property
    def _finished_steps(self) -> int:
        return int(self._state.step.numpy())

    @property
    def latest(self) -> str | None:
        """Path prefix of the newest checkpoint, or None if there is none."""
        return self._recent.prefix(self._recent.steps[0]) if self._recent.steps else None

    def restore_latest(self) -> int:
        """Restores the newest intact checkpoint, if there is one, and removes the leftovers of a crash.

        Newer, damaged checkpoints are renamed to ``*.damaged``, and a warning lists them.

        Returns:
            The number of finished steps; 0 for a new run.

        Raises:
            RunFolderError: if a variable of the checkpoint does not match the state, or all checkpoints are damaged.
        """
        if self._is_chief:
            self._recent.remove_leftovers()
            self._best.remove_leftovers()
        step = newest_intact(self._recent, self._folder)
        if step is None:
            return 0
        path = self._recent.prefix(step)
        try:
            self._checkpoint.restore(path).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            optimizer = getattr(self._state.optimizer, "inner_optimizer", self._state.optimizer)
            hint = _LAMB_HINT if type(optimizer).__name__ == "LAMB" else ""
            raise RunFolderError(f"The checkpoint {path} does not match this run: {error}{hint}") from error
        self._forget_damaged_best()
        if self._is_chief:
            for damaged in self._recent.steps[: self._recent.steps.index(step)]:
                self._recent.move_aside(damaged)
            self._recent.prune()
            self._recent.update_state_file()
        self._saved_step = step
        if step:
            logging.info("Resuming from %s, after step %d.", path, step)
        return self._finished_steps

    def _forget_damaged_best(self) -> None:
        """Makes the next evaluation count as the best if the best checkpoint so far cannot be read."""
        step, damages = self._best.newest_intact()
        if damages or (self._best_note and step is None):
            logging.warning(
                "The best checkpoint of %s cannot be read; the next evaluation counts as the best.", self._folder.path
            )
            self._best_note = {}
            for damaged in damages if self._is_chief else ():
                self._best.move_aside(damaged)

    def save(self) -> str:
        """Saves the state under its step, unless it is already saved, and returns the path prefix.

        Raises:
            NoRoomError: if the disk is full; the earlier checkpoints are kept.
        """
        step = self._finished_steps
        if self._saved_step != step:
            self._write(self._recent)
            self._saved_step = step
            if self._is_chief:
                self._recent.prune()
        return self._recent.prefix(step)

    def save_if_best(self, value: float, metric: str) -> bool:
        """Saves the state in ``best/`` if ``value`` is above all earlier ones of the metric; returns whether it did.

        Args:
            value: value of the metric; higher is better.
            metric: name of the metric. The first value of a metric other than that of the best checkpoint always
                counts as the best.

        Raises:
            NoRoomError: if the disk is full; the best checkpoint so far is kept.
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
                advice = "Free disk space or lower runtime.keep_checkpoint_max; the same command then resumes the run"
                raise self._no_room(self._bytes, advice) from error
            raise

    def check_room(self) -> None:
        """Raises NoRoomError if the checkpoints of a whole run will not fit on the disk; changes no files.

        A run needs room for the recent checkpoints, the best one, and the one being written.

        Raises:
            NoRoomError: if less disk space is free than these checkpoints need.
        """
        needed = max((self._keep + 2) * self._bytes - self._recent.size - self._best.size, self._bytes)
        if self._is_chief and free_bytes(self._folder.path) < needed:
            advice = "Free disk space, lower runtime.keep_checkpoint_max, or choose a --model_dir on another disk"
            raise self._no_room(needed, advice)

    @property
    def _bytes(self) -> int:
        models = [model for model in (self._state.model, self._state.ema_model) if model]
        variables = [variable for model in models for variable in model.variables]
        return checkpoint_bytes([*variables, *self._state.optimizer.variables()])

    def _no_room(self, needed: int, advice: str) -> NoRoomError:
        """Returns the error that says how much disk space is needed and free, and which step is saved."""
        steps = self._recent.steps
        kept = f"The run is saved at step {steps[0]}" if steps else "There is no checkpoint yet"
        return NoRoomError(
            f"Not enough disk space for checkpoints in {self._folder.path}, which keeps {self._keep} recent ones and "
            f"the best one: {megabytes(needed)} are needed ({megabytes(self._bytes)} each) and "
            f"{megabytes(free_bytes(self._folder.path))} are free. {kept}. {advice}."
        )


def _read_note(path: pathlib.Path) -> dict[str, Any]:
    """Reads ``best.json``, which describes the best checkpoint; returns an empty dict if there is none to read."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logging.warning("%s cannot be read (%s); the next evaluation counts as the best.", path, error)
        return {}


def newest_intact(files: CheckpointFiles, folder: RunFolder) -> int | None:
    """Returns the step of the newest intact checkpoint and warns of damaged newer ones; None without any checkpoint.

    Raises:
        RunFolderError: if all checkpoints are damaged.
    """
    step, damages = files.newest_intact()
    listed = "; ".join(f"{files.prefix(number)}: {damage}" for number, damage in damages.items())
    if damages and step is None:
        raise RunFolderError(
            f"No checkpoint of {folder.path} can be read: {listed}. Restore an intact copy of one, or remove "
            f"{folder / 'checkpoints'} to train from the start."
        )
    if damages and step is not None:
        logging.warning("Some checkpoints are damaged: %s. Using %s instead.", listed, files.prefix(step))
    return step
