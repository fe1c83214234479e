"""Verifies the image files of a run or an evaluation, leaves out the unreadable ones, and makes small copies."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Callable

import rich.console
import tensorflow as tf

from effnetv2_keras.basics.small_files import read_json
from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.data.left_out import without
from effnetv2_keras.data.small_copies import with_small_copies
from effnetv2_keras.data.sources.base import DataError, FileSource, Source
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.data.verification import shown, verify
from effnetv2_keras.distribution.strategy import make_agreement, worker_of
from effnetv2_keras.errors import Interrupted
from effnetv2_keras.runs.run_folder import LEFT_OUT_FILE, RunFolder, RunFolderError, write_atomically
from effnetv2_keras.training.interruption import StopRequest

_OnChecked = Callable[[int, int], None]


def verified_splits(
    config: Config,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    splits: Splits,
    console: rich.console.Console,
    stop: StopRequest,
) -> Splits:
    """Returns the splits of a run without the files that it leaves out because they cannot be decoded.

    The first worker verifies the files. A new run writes the names of those that it leaves out into its folder. A
    resumed run leaves out the same files, so that it sees the same images in the same order.

    Raises:
        DataError: if the data cannot be used; see ``verify``.
        Interrupted: if a signal asks the run to end.
        RunFolderError: if the folder holds another run.
    """
    root, resumed = _root(config), (folder / CONFIG_FILE).exists()
    if resumed:
        splits = _without(splits, _read(folder), root)
    folder.check(config, splits)  # before a check that may take long
    worker, agree = worker_of(strategy), make_agreement(strategy)
    error: Exception | None = None
    if worker.is_chief:
        try:
            with _interrupted_by(stop, console, "checking images") as on_checked:
                left_out = _verify({"training": splits.train, "evaluation": splits.evaluation}, config, on_checked)
            if not resumed:
                _write(folder, left_out, root)
        except Exception as caught:  # the other workers wait for the result
            error = caught
    if agree(float(error is not None)):
        raise error or DataError("The first worker cannot use the data; its message says why.")
    splits = splits if resumed else _without(splits, _read(folder), root)
    return splits if config.data.verify is False else Splits(_marked(splits.train), _marked(splits.evaluation))


def verified_evaluation(
    config: Config, strategy: tf.distribute.Strategy, source: Source, console: rich.console.Console
) -> Source:
    """Returns the evaluation split without the files that cannot be decoded; every worker verifies them.

    Raises:
        DataError: if the data cannot be used, or the workers find different files.
    """
    with shown(console) as on_checked:
        left_out = _verify({"evaluation": source}, config, on_checked)
    agree = make_agreement(strategy)
    if agree(float(len(left_out))) != len(left_out):
        raise DataError(
            f"This worker cannot decode {len(left_out)} images, but the first worker another number. All workers must "
            "read the same files."
        )
    if isinstance(source, FileSource) and left_out:
        source = without(source, left_out)
    return source if config.data.verify is False else _marked(source)


def _marked(source: Source) -> Source:
    if isinstance(source, FileSource):
        source = copy.copy(source)
        source.verified = True
    return source


def _verify(sources: dict[str, Source], config: Config, on_checked: _OnChecked) -> list[str]:
    """Returns the paths of the files to leave out."""
    if config.data.verify is False:
        return []
    files = {name: source for name, source in sources.items() if isinstance(source, FileSource)}
    return [path for part in verify(files, config.data, on_checked).values() for path in part.labels]


def copied_splits(config: Config, splits: Splits, console: rich.console.Console, stop: StopRequest) -> Splits:
    """Returns the splits of a run with small copies of large training images; every worker makes its own.

    Raises:
        Interrupted: if a signal asks the run to end.
    """
    with _interrupted_by(stop, console, "making small copies of the images") as on_copied:
        return Splits(with_small_copies(splits.train, config, on_copied), splits.evaluation)


@contextlib.contextmanager
def _interrupted_by(stop: StopRequest, console: rich.console.Console, what: str) -> Iterator[_OnChecked]:
    with shown(console, what) as show:

        def on_checked(done: int, total: int) -> None:
            show(done, total)
            if stop:
                raise Interrupted(
                    f"{stop.name} before the first step, while {what}: {done:,} of {total:,} were done. The same "
                    "command continues with the others."
                )

        yield on_checked


def _root(config: Config) -> str:
    """Returns the folder of the data, which may be at another place when a run is resumed."""
    path = pathlib.Path(config.data.data_dir or ".")
    return str(path.parent if path.is_file() else path)


def _write(folder: RunFolder, left_out: list[str], root: str) -> None:
    if left_out:
        with folder.writable():
            folder.path.mkdir(parents=True, exist_ok=True)
            names = [os.path.relpath(path, root) for path in left_out]
            write_atomically(folder / LEFT_OUT_FILE, json.dumps(names, indent=1))
    else:
        (folder / LEFT_OUT_FILE).unlink(missing_ok=True)  # of a run that ended before its first step


def _read(folder: RunFolder) -> list[str]:
    """Returns the names of the files that a run leaves out; those of earlier versions left out none."""
    path = folder / LEFT_OUT_FILE
    advice = (
        "It says which images the run leaves out; restore it from a copy, or begin a new run in another --model_dir."
    )
    return read_json(path, list, advice=advice, error=RunFolderError) if path.exists() else []


def _without(splits: Splits, names: list[str], root: str) -> Splits:
    if not names:
        return splits
    left_out = set(names)

    def rest(source: Source) -> Source:
        if not isinstance(source, FileSource):
            return source
        return without(source, {path for path in source.labels_of if os.path.relpath(path, root) in left_out})

    return Splits(rest(splits.train), rest(splits.evaluation))
