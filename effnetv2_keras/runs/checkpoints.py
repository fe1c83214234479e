"""Saving, restoring and loading of a run's checkpoints: the newest ones, to resume from, and the best one."""

from __future__ import annotations

import json
import math
import pathlib
import tempfile
from typing import Any, Callable, Protocol

import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.models.checkpointed import checkpointed
from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.optim.base import Optimizer
from effnetv2_keras.runs.checkpoint_files import CheckpointFiles, checkpoint_bytes, wait_for_checkpoint
from effnetv2_keras.runs.disk import (
    NoRoomError,
    RunFolderError,
    free_bytes,
    full_disk_explained,
    is_out_of_room,
    no_room_for_checkpoints,
    write_atomically,
)
from effnetv2_keras.runs.earlier_optimizers import restorable
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.runs.usable import BEST_METRIC, newest_intact, read_note, refuse_lost

_SINCE_ROLLBACKS = ("lr_scale", "rollbacks")
"""Parts of a checkpoint that those of earlier versions lack."""
_NONE, _FAILED = -1, -2
"""What the chief passes on instead of a step."""


class CheckpointedState(Protocol):
    """The parts of a run that a checkpoint holds; ``training.state.TrainState`` implements this protocol."""

    @property
    def model(self) -> tf.keras.Model:
        """The network in training."""

    @property
    def ema_model(self) -> tf.keras.Model | None:
        """A network with the moving average of the weights; None if the average is off."""

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer with its slots."""

    @property
    def step(self) -> tf.Variable:
        """The number of finished steps, an int64 scalar."""

    @property
    def lr_scale(self) -> tf.Variable:
        """The factor of the learning rate, a float32 scalar."""

    @property
    def rollbacks(self) -> tf.Variable:
        """The number of rollbacks of the run, an int64 scalar."""


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
        self._parts: dict[str, Any] = {"model": checkpointed(state.model), "step": state.step}
        self._parts |= {"ema_model": checkpointed(state.ema_model)} if state.ema_model else {}
        self._since_rollbacks = {name: getattr(state, name) for name in _SINCE_ROLLBACKS}
        self._checkpoint = tf.train.Checkpoint(**self._parts, **self._since_rollbacks, optimizer=state.optimizer)
        _ = self._checkpoint.save_counter  # creates the counter, without which a checkpoint is incomplete
        self._recent = CheckpointFiles(folder / "checkpoints", keep=keep)
        self._best = CheckpointFiles(folder / "best")
        self._best_file = folder / "best" / BEST_METRIC
        # Read once, here: processes that share a run must all decide from the same value.
        self._best_note = read_note(self._best_file)
        self._saved_step: int | None = None

    @property
    def _finished_steps(self) -> int:
        return int(self._state.step.numpy())

    @property
    def latest(self) -> str | None:
        """Path prefix of the newest checkpoint, or None if there is none."""
        return self._recent.prefix(self._recent.steps[0]) if self._recent.steps else None

    def is_new(self) -> bool:
        """Returns whether the run has no checkpoint yet, as the chief sees it.

        Raises:
            RunFolderError: if the folder tells of training but has no checkpoint.
        """

        def look() -> int | None:
            if not self._recent.steps:
                refuse_lost(self._folder)
            return next(iter(self._recent.steps), None)

        return self._of_chief(look) is None

    def restore_latest(self) -> int:
        """Restores the newest intact checkpoint, if there is one, and removes the leftovers of a crash.

        Newer, damaged checkpoints are renamed to ``*.damaged``, and a warning lists them.

        Returns:
            The number of finished steps; 0 for a new run.

        Raises:
            RunFolderError: if a variable of the checkpoint does not match the state, all checkpoints are damaged, they
                are gone, or this process cannot read the one that the chief chose.
        """
        if self._is_chief:
            self._recent.remove_leftovers()
            self._best.remove_leftovers()
        step = self._of_chief(lambda: newest_intact(self._recent, self._folder))
        if step is None:
            return 0
        path = self._recent.prefix(step)
        if not self._is_chief:
            wait_for_checkpoint(path)
        try:
            with read_literally(path) as readable:
                self._matching(readable).restore(readable).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise RunFolderError(f"The checkpoint {path} does not match this run: {error}") from error
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

    def _matching(self, path: str) -> tf.train.Checkpoint:
        """Returns the parts of the state under the names of a checkpoint, which an earlier version may have written."""
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        is_earlier = not any(name.startswith(f"{_SINCE_ROLLBACKS[0]}/") for name in stored)
        checkpoint = tf.train.Checkpoint(
            **self._parts,
            **({} if is_earlier else self._since_rollbacks),
            optimizer=restorable(self._state.optimizer, stored),
        )
        _ = checkpoint.save_counter
        return checkpoint

    def _of_chief(self, find: Callable[[], int | None]) -> int | None:
        """Returns the step that the chief finds, in every process: another one may see an older state of the folder.

        Raises:
            RunFolderError: if ``find`` raises it in the chief.
        """
        found: int | None = _NONE
        if self._is_chief:
            try:
                found = find()
            except RunFolderError:
                self._agree(_FAILED)
                raise
        answer = int(self._agree(_NONE if found is None else found))
        if answer == _FAILED:
            raise RunFolderError(f"The first worker cannot resume the run in {self._folder.path}; read its message.")
        return None if answer == _NONE else answer

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

    @property
    def best_step(self) -> int:
        """Number of finished steps of the best checkpoint; 0 if there is none."""
        return int(self._best_note.get("step", 0))

    def restore_best(self) -> None:
        """Restores the best checkpoint, which ``--weights=best`` loads, if there is one and it can be read."""
        step = self._of_chief(lambda: self._best.newest_intact()[0])
        if step is None:
            return
        path = self._best.prefix(step)
        if not self._is_chief:
            wait_for_checkpoint(path)
        with read_literally(path) as readable:
            self._checkpoint.restore(readable).expect_partial()

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

    def save_if_best(self, value: float, metric: str, *, smaller_is_better: bool = False) -> bool:
        """Saves the state in ``best/`` if ``value`` is better than all earlier ones of the metric.

        Args:
            value: value of the metric; NaN is never the best.
            metric: name of the metric. The first value of a metric other than that of the best checkpoint always
                counts as the best.
            smaller_is_better: whether the smallest value is the best, otherwise the largest.

        Returns:
            Whether the value is the best so far.

        Raises:
            NoRoomError: if the disk is full; the best checkpoint so far is kept.
        """
        best = self._best_note["value"] if self._best_note.get("metric") == metric else None
        is_best = not math.isnan(value) and (best is None or (value < best if smaller_is_better else value > best))
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
        variables = [variable for model in models for variable in tf_variables(model.weights)]
        return checkpoint_bytes([*variables, *self._state.optimizer.variables])

    def _no_room(self, needed: int, advice: str) -> NoRoomError:
        return no_room_for_checkpoints(
            self._folder.path, needed, keep=self._keep, each=self._bytes, steps=self._recent.steps, advice=advice
        )
