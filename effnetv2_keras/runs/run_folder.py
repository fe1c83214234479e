"""A run's folder: whose run it is, with which settings and which data. Refuses to mix two runs.

The folder holds ``config.yaml`` (the resolved configuration), ``data.json`` (classes and counts), ``checkpoints/``,
``best/``, ``metrics.jsonl``, ``metrics.csv``, ``provenance.json``, ``training.png``, ``report.html`` and TensorBoard's
event files; while it is trained, also ``.lock`` and ``.lock_holder.json``. A checkpoint that could not be read is kept
as ``*.damaged``.
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

__all__ = ["DATA_FILE", "RunFolder", "RunFolderError", "write_atomically"]

DATA_FILE = "data.json"


def _data_of(splits: Splits) -> dict[str, Any]:
    """What a run notes of its data."""
    return {
        "class_names": list(splits.train.class_names),
        "num_train": splits.train.num_examples,
        "num_eval": splits.evaluation.num_examples,
    }


def _is_no_content(name: str) -> bool:
    """Whether a file is one that a run leaves which did not get to its first configuration."""
    return name == DATA_FILE or name in LOCK_FILES or name.endswith(".partial")


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; ``claim`` creates it.

    Raises:
        RunFolderError: for an address of another machine's storage.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "://" in str(path):
            raise RunFolderError(
                f"A run cannot be kept at {path}: --model_dir must be a folder of this machine's file system. Mount "
                "the bucket (gcsfuse does that for gs://) and name the folder where it is mounted."
            )
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def claim(self, config: Config, splits: Splits) -> None:
        """Makes the folder this run's, or checks that it already is.

        Raises:
            RunFolderError: as ``check`` does, or if the folder cannot be written.
        """
        self.check(config, splits)
        with self._writable():
            self.path.mkdir(parents=True, exist_ok=True)
            remove_partial_files(self.path)
            write_atomically(self / DATA_FILE, json.dumps(_data_of(splits), indent=1))
            write_atomically(self / CONFIG_FILE, config.to_yaml())

    @contextlib.contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Holds the folder for this process; one that is killed leaves it free.

        Raises:
            RunFolderError: if another process holds the folder, or it cannot be written.
        """
        with contextlib.ExitStack() as held:
            with self._writable():
                held.enter_context(locked(self.path))
            yield self

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Explains why the folder cannot be written."""
        try:
            with full_disk_explained(self.path):
                yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}. Make it a folder that this user may write to, or "
                "choose another --model_dir."
            ) from error

    def check(self, config: Config, splits: Splits) -> None:
        """Makes sure that the folder is this run's or free, and changes nothing.

        Raises:
            RunFolderError: if it holds a run with other settings or other data, or files that are no run's. Settings
                under ``runtime`` and ``data.service`` may differ.
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
                    f"{self.path} holds another run: {listed}. Use the same settings to go on with it, or another "
                    "--model_dir for a new run."
                )
        elif self.path.is_dir() and any(not _is_no_content(path.name) for path in self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and holds no {CONFIG_FILE}, so it is not a run of this program. "
                "Choose another --model_dir."
            )

    def config(self) -> Config:
        """The run's configuration.

        Raises:
            RunFolderError: if there is no run here, or its configuration is not one of this version.
        """
        if not (self / CONFIG_FILE).is_file():
            raise RunFolderError(f"{self.path} holds no run: there is no {CONFIG_FILE}. Is --model_dir right?")
        try:
            return Config.from_yaml((self / CONFIG_FILE).read_text())
        except ConfigError as error:
            raise RunFolderError(f"{self / CONFIG_FILE} cannot be read: {error}") from error

    def class_names(self) -> tuple[str, ...]:
        """The classes, in label order."""
        return tuple(self._data()["class_names"])

    def num_images(self) -> tuple[int, int]:
        """Images to train on and to evaluate on."""
        data = self._data()
        return data["num_train"], data["num_eval"]

    def _data(self) -> dict[str, Any]:
        return json.loads((self / DATA_FILE).read_text())

    def metrics(self, up_to_step: int | None = None) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``, oldest first; a last line cut short by a crash is left out."""
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
