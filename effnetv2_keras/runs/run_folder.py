"""The folder of a run: its settings, its data, and checks that prevent two runs from sharing a folder.

The folder holds ``config.yaml`` (the resolved configuration), ``data.json`` (classes and counts), ``left_out.json``
(unreadable images, if there are any), ``checkpoints/``, ``best/``, ``metrics.jsonl``, ``metrics.csv``,
``provenance.json``, ``training.png``, ``report.html`` and TensorBoard's event files. During training it also holds
``.lock`` and ``.lock_holder.json``. The files of checkpoints that cannot be read are kept as ``*.damaged``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.runs.disk import RunFolderError, full_disk_explained, remove_partial_files, write_atomically
from effnetv2_keras.runs.folder_lock import LOCK_FILES, locked

__all__ = ["DATA_FILE", "LEFT_OUT_FILE", "RunFolder", "RunFolderError", "write_atomically"]

DATA_FILE = "data.json"
LEFT_OUT_FILE = "left_out.json"
"""Image files that the run leaves out because they could not be decoded, relative to ``data.data_dir``."""


def _data_of(splits: Splits) -> dict[str, Any]:
    """Returns the content of ``data.json``: class names and numbers of images."""
    return {
        "class_names": list(splits.train.class_names),
        "num_train": splits.train.num_examples,
        "num_eval": splits.evaluation.num_examples,
    }


def _is_no_content(name: str) -> bool:
    """Returns whether a file may be left by a run that ended before it wrote its configuration."""
    return name in (DATA_FILE, LEFT_OUT_FILE, *LOCK_FILES) or name.endswith(".partial")


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; ``claim`` creates it.

    Raises:
        RunFolderError: if the path is the address of remote storage, such as ``gs://bucket/run``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "://" in str(path):
            raise RunFolderError(
                f"A run cannot be stored at {path}: --model_dir must be a folder in the local file system. Mount the "
                "bucket (with gcsfuse for gs://) and give the folder where it is mounted."
            )
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def claim(self, config: Config, splits: Splits) -> None:
        """Writes the configuration and the data of this run to the folder, after ``check``.

        Raises:
            RunFolderError: as ``check``, or if the folder cannot be written.
        """
        self.check(config, splits)
        with self.writable():
            self.path.mkdir(parents=True, exist_ok=True)
            remove_partial_files(self.path)
            write_atomically(self / DATA_FILE, json.dumps(_data_of(splits), indent=1))
            write_atomically(self / CONFIG_FILE, config.to_yaml())

    @contextlib.contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Locks the folder for this process inside a ``with`` block; a killed process releases it.

        Raises:
            RunFolderError: if another process holds the lock, or the folder cannot be written.
        """
        with contextlib.ExitStack() as held:
            with self.writable():
                held.enter_context(locked(self.path))
            yield self

    @contextlib.contextmanager
    def writable(self) -> Iterator[None]:
        """Turns errors of writing into a ``RunFolderError`` that says what to do, inside a ``with`` block."""
        try:
            with full_disk_explained(self.path):
                yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}. Give this user permission to write to the folder, "
                "or choose another --model_dir."
            ) from error

    def check(self, config: Config, splits: Splits) -> None:
        """Raises RunFolderError unless the folder holds this run or is free; changes no files.

        ``data.service``, ``data.unreadable``, ``data.max_unreadable``, ``data.verify``, ``eval.batch_size`` and the
        settings under ``runtime`` and ``search`` may differ from those of the stored run; see ``Config.differences``.

        Raises:
            RunFolderError: if the folder holds a run with other settings or other data, or files of something else.
        """
        data = _data_of(splits)
        if (self / CONFIG_FILE).exists():
            differences = {
                **self.config().differences(config),
                **{key: (old, data[key]) for key, old in self._data().items() if old != data[key]},
            }
            if differences:
                listed = "; ".join(f"{key} was {old!r} and is now {new!r}" for key, (old, new) in differences.items())
                raise RunFolderError(
                    f"{self.path} holds another run: {listed}. Use the same settings to resume it, or another "
                    "--model_dir for a new run."
                )
        elif self.path.is_dir() and any(not _is_no_content(path.name) for path in self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and holds no {CONFIG_FILE}, so it is not a run of this program. "
                "Choose another --model_dir."
            )

    def config(self) -> Config:
        """Returns the configuration of the run.

        Raises:
            RunFolderError: if the folder holds no run, or this version cannot read its configuration.
        """
        if not (self / CONFIG_FILE).is_file():
            raise RunFolderError(f"{self.path} holds no run: there is no {CONFIG_FILE}. Check --model_dir.")
        try:
            return Config.from_yaml((self / CONFIG_FILE).read_text())
        except ConfigError as error:
            raise RunFolderError(f"{self / CONFIG_FILE} cannot be read: {error}") from error

    def class_names(self) -> tuple[str, ...]:
        """Returns the class names, in label order."""
        return tuple(self._data()["class_names"])

    def num_images(self) -> tuple[int, int]:
        """Returns the numbers of training and evaluation images."""
        data = self._data()
        return data["num_train"], data["num_eval"]

    def _data(self) -> dict[str, Any]:
        return json.loads((self / DATA_FILE).read_text())

    def metrics(self, up_to_step: int | None = None) -> list[dict[str, Any]]:
        """Returns the rows of ``metrics.jsonl``, oldest first.

        A last line that a crash cut short is left out.

        Args:
            up_to_step: the last step to return; None returns all.
        """
        path = self / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if up_to_step is None or row["step"] <= up_to_step:
                rows.append(row)
        return rows
