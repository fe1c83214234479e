"""Writing, listing, checking and removing of the checkpoint files in one folder."""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import re
import shutil
import time
from typing import Any

import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.runs.disk import RunFolderError, remove_partial_files, sync_folder, write_atomically

_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+)")
_ASIDE = ".writing-"

VISIBLE_WITHIN = 120.0
"""Seconds within which a process sees the files of another one; a shared file system may need a minute."""


class CheckpointFiles:
    """The checkpoints ``ckpt-<step>`` of a folder, each an index file and data files.

    A checkpoint is first written to a hidden folder beside the others. Then its files are renamed, the index last. A
    crash at any moment therefore leaves the earlier checkpoints intact. Checkpoints are found by the names of their
    files, and are read completely before they are used. TensorFlow's ``checkpoint`` file, which names the newest
    checkpoint, is written for other programs and never read here.

    Args:
        folder: folder of the checkpoints; the first ``write`` creates it.
        keep: number of newest checkpoints that ``prune`` keeps.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 1) -> None:
        self._folder, self._keep = folder, keep

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, newest first, including checkpoints with missing files."""
        found = {int(match[1]) for path in self._folder.glob("ckpt-*") if (match := _FILE.fullmatch(path.name))}
        return sorted((step for step in found if not self._is_unfinished(step)), reverse=True)

    def prefix(self, step: int) -> str:
        """Returns the path prefix of the checkpoint of a step, which is its name in TensorFlow."""
        return str(self._folder / f"ckpt-{step}")

    @property
    def size(self) -> int:
        """Total size of all checkpoints, bytes."""
        return sum(path.stat().st_size for step in self.steps for path in self._files(step))

    def newest_intact(self) -> tuple[int | None, dict[int, str]]:
        """Finds the newest checkpoint that can be read completely.

        Returns:
            The step of the checkpoint, or None if there is none; and for each newer checkpoint, by step, what is wrong
            with it.
        """
        damages: dict[int, str] = {}
        # Lists the steps again each time, because a running training may add and remove checkpoints.
        while left := [step for step in self.steps if step not in damages]:
            damage = check_integrity(self.prefix(left[0]))
            if damage is None:
                break
            damages[left[0]] = damage
        still_there = {step: damages[step] for step in self.steps if step in damages}
        return (left[0] if left else None), still_there

    def write(self, checkpoint: tf.train.Checkpoint, step: int) -> str:
        """Writes a checkpoint and returns its path prefix; if writing fails, the folder is unchanged."""
        aside = self._aside(step)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            checkpoint.write(str(aside / f"ckpt-{step}"))
            written = sorted(aside.iterdir(), key=lambda path: path.suffix == ".index")
            for path in written:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            for path in written:
                os.replace(path, self._folder / path.name)
        finally:
            self._remove_unfinished(step)
        sync_folder(self._folder)
        self.update_state_file()
        return self.prefix(step)

    def prune(self) -> None:
        """Removes all checkpoints except the ``keep`` newest."""
        for step in self.steps[self._keep :]:
            for path in self._files(step):
                path.unlink()

    def remove_leftovers(self) -> None:
        """Removes the files that a killed ``write`` left."""
        for aside in self._folder.glob(f"{_ASIDE}[0-9]*"):
            self._remove_unfinished(int(aside.name[len(_ASIDE) :]))
        remove_partial_files(self._folder)

    def move_aside(self, step: int) -> None:
        """Renames the files of a damaged checkpoint to ``*.damaged``, so that ``steps`` no longer lists it."""
        for path in self._files(step):
            names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
            path.rename(next(place for place in map(path.with_name, names) if not place.exists()))

    def update_state_file(self) -> None:
        """Updates TensorFlow's ``checkpoint`` file, which ``tf.train.latest_checkpoint`` reads."""
        names = [f"ckpt-{step}" for step in reversed(self.steps[: self._keep])]
        if names:
            state = tf.compat.v1.train.generate_checkpoint_state_proto(str(self._folder.absolute()), names[-1], names)
            write_atomically(self._folder / "checkpoint", str(state))

    def _files(self, step: int) -> list[pathlib.Path]:
        """Returns the files of a checkpoint, the index first: without an index, TensorFlow finds no checkpoint."""
        found = [path for path in self._folder.glob(f"ckpt-{step}.*") if _FILE.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.suffix != ".index")

    def _aside(self, step: int) -> pathlib.Path:
        return self._folder / f"{_ASIDE}{step}"

    def _is_unfinished(self, step: int) -> bool:
        """Returns whether the files of a step are from a write that ended before the index was renamed."""
        return self._aside(step).exists() and not pathlib.Path(f"{self.prefix(step)}.index").exists()

    def _remove_unfinished(self, step: int) -> None:
        """Removes the hidden folder of a step, and its files if the write ended before the index was renamed."""
        for path in self._files(step) if self._is_unfinished(step) else ():
            path.unlink()
        shutil.rmtree(self._aside(step), ignore_errors=True)


def checkpoint_bytes(variables: list[Any]) -> int:
    """Returns the size of a checkpoint of the variables, bytes; each distinct variable counts once."""
    distinct = {id(variable): variable for variable in variables}.values()
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in distinct)


def check_integrity(prefix: str) -> str | None:
    """Returns what is wrong with a checkpoint, or None if it can be read completely.

    TensorFlow compares the checksums when it reads the tensors.

    Args:
        prefix: path prefix of the checkpoint.

    Raises:
        RunFolderError: if this user has no permission to read the files.
    """
    with read_literally(prefix) as readable:
        try:
            reader = tf.train.load_checkpoint(readable)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
            reason = str(error).replace(readable, prefix).strip()
            if os.strerror(errno.EACCES) in reason:
                raise RunFolderError(f"{prefix} cannot be read: {reason}. Give this user read permission.") from error
            return reason.splitlines()[0] if reason else type(error).__name__
    return None


def wait_for_checkpoint(path: str) -> None:
    """Waits until this process sees the checkpoint that the chief chose.

    Raises:
        RunFolderError: if it does not see it within two minutes.
    """
    end = time.monotonic() + VISIBLE_WITHIN
    while damage := check_integrity(path):
        logging.log_every_n_seconds(logging.WARNING, "Waiting for the checkpoint %s of the first worker.", 30, path)
        if time.monotonic() > end:
            raise RunFolderError(
                f"The first worker resumes from the checkpoint {path}, which this worker cannot read after "
                f"{VISIBLE_WITHIN:.0f} s: {damage}. All workers need the same --model_dir on a shared file "
                "system. Check on this machine that it is mounted and up to date, then start all workers again."
            )
        time.sleep(min(1.0, VISIBLE_WITHIN / 4))
