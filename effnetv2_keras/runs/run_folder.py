"""The folder of a run: its settings, its data, and checks that prevent two runs from sharing a folder.

The folder holds ``config.yaml`` (the resolved configuration), ``data.json`` (classes and counts), ``left_out.json``
(unreadable images, if there are any), ``class_weights.json`` (if the loss has them), ``checkpoints/``, ``best/``,
``metrics.jsonl``, ``metrics.csv``, ``provenance.json``, ``training.png``, ``report.html``, ``evaluations.json`` (the
newest evaluation of each split), ``mistakes/`` (their wrong answers as pictures), the tables of ``--mode=eval``, and
TensorBoard's event files. During training it also holds ``.lock`` and ``.lock_holder.json``. The files of checkpoints
that cannot be read, and a metrics file with damaged lines, are kept as ``*.damaged``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from effnetv2_keras.basics.small_files import read_json, read_text
from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.config.overrides import read_yaml
from effnetv2_keras.data.sources.fingerprint import fingerprint
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.runs import commands
from effnetv2_keras.runs.disk import RunFolderError, full_disk_explained, remove_partial_files, write_atomically
from effnetv2_keras.runs.folder_lock import LOCK_FILES, locked
from effnetv2_keras.runs.metrics_rows import METRICS_FILE, read_rows

__all__ = ["CLASS_WEIGHTS_FILE", "DATA_FILE", "LEFT_OUT_FILE", "RunFolder", "RunFolderError", "write_atomically"]

DATA_FILE = "data.json"
LEFT_OUT_FILE = "left_out.json"
"""Image files that the run leaves out because they could not be decoded, relative to ``data.data_dir``."""
CLASS_WEIGHTS_FILE = "class_weights.json"
"""Weight in the loss of each class, if ``train.class_weights`` is set."""
_DATA_DIR, _TURNED = "data.data_dir", "data.exif_orientation"
_IMAGES = "images"  # in data.json; runs of earlier versions lack it
_MOST_SHOWN = 100
"""Characters of a value that an error message shows."""
_SECTIONS = ("model", "progressive", "train", "eval", "data", "precision")
"""Sections of the configuration that every version has written."""


def _data_of(splits: Splits) -> dict[str, Any]:
    """Returns the content of ``data.json``: class names, and for each split the number and a checksum of its images."""
    return {
        "class_names": list(splits.train.class_names),
        "num_train": splits.train.num_examples,
        "num_eval": splits.evaluation.num_examples,
        _IMAGES: [fingerprint(splits.train), fingerprint(splits.evaluation)],
    }


def whole_config(text: str) -> Config:
    """Returns a configuration; raises ``ConfigError`` if the text has lost sections, which would get their defaults."""
    given = {key.partition(".")[0] for key in read_yaml(text)}
    if missing := [name for name in _SECTIONS if name not in given]:
        raise ConfigError(f"The configuration is incomplete: it has no section {missing[0]!r}.")
    return Config.from_yaml(text)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _is_no_content(name: str) -> bool:
    """Returns whether a file may be left by a run that ended before it wrote its configuration."""
    return name in (DATA_FILE, LEFT_OUT_FILE, CLASS_WEIGHTS_FILE, *LOCK_FILES) or name.endswith(".partial")


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
        self.path = pathlib.Path(path).expanduser()

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
        except (FileExistsError, NotADirectoryError) as error:
            raise RunFolderError(
                f"{self.path} cannot be a folder: it, or a part of its path, is a file. Choose another --model_dir."
            ) from error
        except OSError as error:
            raise RunFolderError(
                f"{self.path} cannot be written: {error.strerror}. Give this user permission to write to the folder, "
                "or choose another --model_dir."
            ) from error

    def check(self, config: Config, splits: Splits) -> None:
        """Raises RunFolderError unless the folder holds this run or is free; changes no files.

        ``data.service``, ``data.unreadable``, ``data.max_unreadable``, ``data.verify``, ``eval.batch_size`` and the
        settings under ``runtime`` and ``search`` may differ from those of the stored run; see ``Config.differences``.
        ``data.data_dir`` may differ if it has the same images: the same names relative to it, and the same labels.

        Raises:
            RunFolderError: if the folder holds a run with other settings or other data, or files of something else.
        """
        if (self / CONFIG_FILE).exists():
            differences = self._differences(config, _data_of(splits))
            if differences:
                raise RunFolderError(self._refusal(config, differences))
        elif self.path.is_dir() and any(not _is_no_content(path.name) for path in self.path.iterdir()):
            raise RunFolderError(
                f"{self.path} is not empty and holds no {CONFIG_FILE}. If it is a run, restore its {CONFIG_FILE}. "
                "Otherwise choose another --model_dir."
            )

    def _refusal(self, config: Config, differences: Mapping[str, tuple[Any, Any]]) -> str:
        """Returns what differs, and the commands that go on."""
        listed = "; ".join(
            f"{key} was {_shown(was)} and is now {_shown(new)}" for key, (was, new) in differences.items()
        )
        start = f"{self.path} holds another run: {listed}."
        if not commands.can_be_typed(config):
            return f"{start} Use the same settings to resume it, or another --model_dir for a new run."
        changes = {key: new for key, (_, new) in self.config().differences(config).items() if key != _DATA_DIR}
        place = self.config().data.data_dir
        same_images = len(changes) == len(differences)
        if place != config.data.data_dir:
            changes[_DATA_DIR] = config.data.data_dir
        images = "" if same_images else f" with the images that it began with, in {place}"
        origin = "with its settings" if {"model.model_name", "model.network"} & changes.keys() else "from its weights"
        return (
            f"{start}\nTo resume the run as it is{images}:\n  {commands.resume(self.path)}\n"
            f"To start a new run {origin}, and with what is given now:\n  {commands.new_run(self.path, changes)}"
        )

    def _differences(self, config: Config, data: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Returns how this run differs from the stored one; the data may have moved if its images are the same."""
        stored = self._data()
        changed = self.config().differences(config)
        if _TURNED in changed and _TURNED not in read_yaml((self / CONFIG_FILE).read_text("utf-8")):
            del changed[_TURNED]  # a run of an earlier version may go on as it began
        differences = {
            **changed,
            **{
                key: (old, data[key])
                for key, old in stored.items()
                if key in data and key != _IMAGES and old != data[key]
            },
        }
        old, new = differences.pop(_DATA_DIR, (config.data.data_dir, config.data.data_dir))
        if stored.get(_IMAGES, data[_IMAGES]) != data[_IMAGES]:
            differences["the checksum of the names and labels of the images"] = (
                f"{stored[_IMAGES][0][:8]} (in {old})", f"{data[_IMAGES][0][:8]} (in {new})"
            )  # fmt: skip
        elif old != new and not differences and os.path.realpath(old or "") != os.path.realpath(new or ""):
            logging.info("The data has moved from %s to %s; its images are the same.", old, new)
            if _IMAGES not in stored:
                logging.warning(
                    "%s was written by an earlier version and has no checksum of the images. Their numbers and classes "
                    "are the same in %s and %s; make sure that the images are too.", self.path, old, new,
                )  # fmt: skip
        return differences

    def config(self) -> Config:
        """Returns the configuration of the run.

        Raises:
            RunFolderError: if the folder holds no run, or this version cannot read its configuration.
        """
        if not (self / CONFIG_FILE).is_file():
            raise RunFolderError(f"{self.path} holds no run: there is no {CONFIG_FILE}. Check --model_dir.")
        try:
            return whole_config(read_text(self / CONFIG_FILE))
        except (ValueError, OverflowError, RecursionError, TypeError) as error:  # the last three for absurd numbers
            reason = str(error).rstrip(".") or type(error).__name__
            raise RunFolderError(
                f"{self / CONFIG_FILE} cannot be read: {reason}. Restore an intact copy of it."
            ) from error

    def class_names(self) -> tuple[str, ...]:
        """Returns the class names, in label order."""
        return tuple(self._data()["class_names"])

    def num_images(self) -> tuple[int, int]:
        """Returns the numbers of training and evaluation images."""
        data = self._data()
        return data["num_train"], data["num_eval"]

    def _data(self) -> dict[str, Any]:
        advice = (
            "Restore an intact copy of it; a new run with the same data writes the same file. It contains class_names, "
            "a list of names in label order, and the numbers of images num_train and num_eval."
        )
        path = self / DATA_FILE
        data: dict[str, Any] = read_json(path, advice=advice, error=RunFolderError)
        names = data.get("class_names")
        named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        counted = all(type(data.get(key)) is int and data[key] >= 0 for key in ("num_train", "num_eval"))
        images = data.get(_IMAGES, ["", ""])
        summed = isinstance(images, list) and len(images) == 2 and all(isinstance(one, str) for one in images)
        if not (named and counted and summed):
            missing = (
                "the names of the classes" if not named
                else "the numbers of images num_train and num_eval" if not counted
                else f"two checksums {_IMAGES}"
            )  # fmt: skip
            raise RunFolderError(f"{path} cannot be read: it lacks {missing}. {advice}")
        return data

    def metrics(self, up_to_step: int | None = None) -> list[dict[str, Any]]:
        """Returns the rows of ``metrics.jsonl``, oldest first.

        Damaged lines, and a last line that a crash cut short, are left out.

        Args:
            up_to_step: the last step to return; None returns all.
        """
        rows, _ = read_rows(self / METRICS_FILE)
        return [row for row in rows if up_to_step is None or row["step"] <= up_to_step]
