"""The commands that go on from a run, as they are typed."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from effnetv2_keras.basics.program import program
from effnetv2_keras.config import CONFIG_FILE, Config

_NETWORK = ("model.model_name", "model.network")


def can_be_typed(config: Config) -> bool:
    """Returns whether the command line can open the data of a run; Python code may have passed arrays instead."""
    return bool(config.data.data_dir) or config.data.source == "digits"


def resume(folder: pathlib.Path, *flags: str) -> str:
    """Returns the command that resumes a run with its own settings.

    Args:
        folder: folder of the run.
        flags: further flags.
    """
    return of_mode("train", folder, *flags)


def of_mode(mode: str, folder: pathlib.Path, *flags: str) -> str:
    """Returns the command that uses a run.

    Args:
        mode: a value of ``--mode``.
        folder: folder of the run.
        flags: further flags.
    """
    return shlex.join([*program(), f"--mode={mode}", f"--model_dir={folder}", *flags])


def new_run(folder: pathlib.Path, changes: Mapping[str, Any]) -> str:
    """Returns the command that starts a new run with the settings of another.

    The new run begins with the weights of the other, unless it has another network.

    Args:
        folder: folder of the other run.
        changes: settings that differ, by dotted name.

    Returns:
        The command, and on a second line a note about settings that cannot be written in it.
    """
    named = {key: value for key, value in changes.items() if key != "model.network"}
    if not any(key in changes for key in _NETWORK):
        named = {"train.ft_init_ckpt": str(folder), **named}
    texts = {key: _text(value) for key, value in named.items()}
    unwritable = [key for key, text in texts.items() if "," in text or "\n" in text]
    given = ",".join(f"{key}={text}" for key, text in texts.items() if key not in unwritable)
    command = resume(
        _free(folder), f"--hparam_str={folder / CONFIG_FILE}", *([f"--hparam_str={given}"] if given else [])
    )
    note = f"\n  and in a YAML file, named by another --hparam_str: {', '.join(unwritable)}" if unwritable else ""
    return command + note


def _free(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder's name with the first number that is not in use."""
    number = 2
    while (free := folder.with_name(f"{folder.name}_{number}")).exists():
        number += 1
    return free


def _text(value: Any) -> str:
    """Returns a value as ``--hparam_str`` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return "|".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)
