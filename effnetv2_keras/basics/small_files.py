"""Reading of small files that may be damaged, and of paths that TensorFlow would take for patterns (no TensorFlow)."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from effnetv2_keras.errors import UsageError

_PATTERN = re.compile(r"[*?\[\]\\]")
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def parse_json(text: str, kind: type[Any] | tuple[type[Any], ...] = dict) -> Any:
    """Returns the content of a JSON text.

    Args:
        text: the JSON text.
        kind: type or types of the content: ``dict``, ``list``, ``str``, ``(int, float)`` for a number, or ``object``
            for anything.

    Raises:
        ValueError: if the text is not JSON, is nested too deeply, or its content is of another type; the message says
            which.
    """
    if not text.strip():
        raise ValueError("it is empty")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    if not isinstance(content, kind) or (isinstance(content, bool) and kind not in (bool, object)):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(dict.fromkeys(_KINDS.get(one, "a number") for one in kinds))
        raise ValueError(f"it is {_KINDS.get(type(content), 'a number')}, not {wanted}")
    return content


def read_text(path: pathlib.Path) -> str:
    """Returns the content of a UTF-8 text file.

    Raises:
        ValueError: if the file cannot be read or is not UTF-8; the message says why.
    """
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not a text file in UTF-8 (byte {error.start})") from error


def read_json(
    path: pathlib.Path,
    kind: type[Any] | tuple[type[Any], ...] = dict,
    *,
    advice: str,
    error: type[UsageError] = UsageError,
) -> Any:
    """Returns the content of a JSON file.

    Args:
        path: the file.
        kind: see ``parse_json``.
        advice: what the user can do about a damaged file, the end of the message.
        error: type of the error.

    Raises:
        UsageError: ``error``, if the file cannot be read, or ``parse_json`` does not accept its content.
    """
    try:
        return parse_json(read_text(path), kind)
    except ValueError as problem:
        raise error(f"{path} cannot be read: {problem}. {advice}") from problem


@contextlib.contextmanager
def read_literally(path: str | os.PathLike[str]) -> Iterator[str]:
    r"""Gives a path of the same content that TensorFlow does not take for a pattern, inside a ``with`` block.

    When it reads a checkpoint or a SavedModel, TensorFlow first searches for its path as a pattern of file names. A
    path with ``*``, ``?``, ``[`` or ``\`` therefore matches other files, or none. Such a path is read through symbolic
    links in a temporary folder. Writing needs no such detour.

    Args:
        path: a folder, or the path prefix of a checkpoint.

    Returns:
        ``path`` itself if it has none of these characters, or else the path of the links.
    """
    original = pathlib.Path(path)
    if not _PATTERN.search(str(path)):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(dir=_plain_temporary_folder()) as folder:
        alias = pathlib.Path(folder) / "original"
        if original.is_dir():
            alias.symlink_to(original.absolute(), target_is_directory=True)
        elif original.parent.is_dir():
            for file in original.parent.iterdir():
                if file.name.startswith(f"{original.name}."):
                    alias.with_name(alias.name + file.name[len(original.name) :]).symlink_to(file.absolute())
        yield str(alias)


def _plain_temporary_folder() -> str | None:
    """Returns a folder for temporary files whose path is no pattern; None for the usual one."""
    usual = tempfile.gettempdir()
    return "/tmp" if _PATTERN.search(usual) and os.path.isdir("/tmp") and os.name == "posix" else None
