"""A run's folder: whose run it is, with which settings and which data. Refuses to mix two runs.

The folder holds ``config.yaml`` (the resolved configuration), ``data.json`` (classes and counts), ``checkpoints/``,
``best/``, ``metrics.jsonl``, ``metrics.csv``, ``training.png`` and TensorBoard's event files.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any

from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import ConfigError, UsageError

DATA_FILE = "data.json"


class RunFolderError(UsageError):
    """A folder that does not hold the run it should."""


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file so that a reader, or a crash, never meets half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def _data_of(splits: Splits) -> dict[str, Any]:
    """What a run notes of its data."""
    return {
        "class_names": list(splits.train.class_names),
        "num_train": splits.train.num_examples,
        "num_eval": splits.evaluation.num_examples,
    }


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; ``claim`` creates it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def claim(self, config: Config, splits: Splits) -> None:
        """Makes the folder this run's, or checks that it already is.

        Raises:
            RunFolderError: as ``check`` does.
        """
        self.check(config, splits)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self / DATA_FILE, json.dumps(_data_of(splits), indent=1))
        write_atomically(self / CONFIG_FILE, config.to_yaml())

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
        elif self.path.exists() and any(path.name != DATA_FILE for path in self.path.iterdir()):
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
