"""The checkpoint files of one folder: written aside and renamed, listed by step, checked when read."""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import re
import shutil
from typing import Any

import tensorflow as tf

from effnetv2_keras.runs.disk import RunFolderError, remove_partial_files, sync_folder, write_atomically

_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+)")
_ASIDE = ".writing-"


class CheckpointFiles:
    """The checkpoints ``ckpt-<step>`` of a folder, each an index file and data files.

    A checkpoint is written into a hidden folder beside the others and then renamed, its index last, so a crash at any
    moment leaves the ones before. What there is to read is found by the files' names and read whole before it is
    used: TensorFlow's ``checkpoint`` file, which names the newest, is written for other readers only.

    Args:
        folder: theirs; the first ``write`` creates it.
        keep: the newest ones that ``prune`` leaves.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 1) -> None:
        self._folder, self._keep = folder, keep

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, newest first, also of those that have lost a file."""
        found = {int(match[1]) for path in self._folder.glob("ckpt-*") if (match := _FILE.fullmatch(path.name))}
        return sorted((step for step in found if not self._is_unfinished(step)), reverse=True)

    def prefix(self, step: int) -> str:
        """TensorFlow's name of the checkpoint of a step."""
        return str(self._folder / f"ckpt-{step}")

    @property
    def size(self) -> int:
        """Bytes of all checkpoints."""
        return sum(path.stat().st_size for step in self.steps for path in self._files(step))

    def newest_intact(self) -> tuple[int | None, dict[int, str]]:
        """Finds the newest checkpoint that can be read from beginning to end.

        Returns:
            Its step, or None; and what is wrong with each newer one.
        """
        damages: dict[int, str] = {}
        while left := [step for step in self.steps if step not in damages]:  # anew, since a run may be at work
            damage = check_integrity(self.prefix(left[0]))
            if damage is None:
                break
            damages[left[0]] = damage
        still_there = {step: damages[step] for step in self.steps if step in damages}
        return (left[0] if left else None), still_there

    def write(self, checkpoint: tf.train.Checkpoint, step: int) -> str:
        """Writes a checkpoint and returns its prefix; if that fails, all files are as they were."""
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
        """Removes all but the newest."""
        for step in self.steps[self._keep :]:
            for path in self._files(step):
                path.unlink()

    def remove_leftovers(self) -> None:
        """Removes what a write that was killed has left."""
        for aside in self._folder.glob(f"{_ASIDE}[0-9]*"):
            self._remove_unfinished(int(aside.name[len(_ASIDE) :]))
        remove_partial_files(self._folder)

    def move_aside(self, step: int) -> None:
        """Renames the files of a damaged checkpoint, so that it is not listed any more."""
        for path in self._files(step):
            names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
            path.rename(next(place for place in map(path.with_name, names) if not place.exists()))

    def update_state_file(self) -> None:
        """Makes TensorFlow's ``checkpoint`` file name what there is, for ``tf.train.latest_checkpoint``."""
        names = [f"ckpt-{step}" for step in reversed(self.steps[: self._keep])]
        if names:
            state = tf.compat.v1.train.generate_checkpoint_state_proto(str(self._folder.absolute()), names[-1], names)
            write_atomically(self._folder / "checkpoint", str(state))

    def _files(self, step: int) -> list[pathlib.Path]:
        """The files of a checkpoint, its index first: without it, the others are no checkpoint to TensorFlow."""
        found = [path for path in self._folder.glob(f"ckpt-{step}.*") if _FILE.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.suffix != ".index")

    def _aside(self, step: int) -> pathlib.Path:
        return self._folder / f"{_ASIDE}{step}"

    def _is_unfinished(self, step: int) -> bool:
        """Whether the files of a step are those of a write that did not get to the index."""
        return self._aside(step).exists() and not pathlib.Path(f"{self.prefix(step)}.index").exists()

    def _remove_unfinished(self, step: int) -> None:
        """Removes the files of a write that did not get to the index, and its hidden folder."""
        for path in self._files(step) if self._is_unfinished(step) else ():
            path.unlink()
        shutil.rmtree(self._aside(step), ignore_errors=True)


def checkpoint_bytes(variables: list[Any]) -> int:
    """Room that a checkpoint of variables takes."""
    distinct = {id(variable): variable for variable in variables}.values()
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in distinct)


def check_integrity(prefix: str) -> str | None:
    """Reads a whole checkpoint, whose checksums TensorFlow compares.

    Returns:
        What is wrong with it; None if nothing is.

    Raises:
        RunFolderError: if this user may not read it.
    """
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        if os.strerror(errno.EACCES) in str(error):
            raise RunFolderError(f"{prefix} cannot be read: {error}. Give this user the right to read it.") from error
        return str(error).strip().splitlines()[0]
    return None
