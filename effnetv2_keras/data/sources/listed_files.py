"""Finds the image file that a row of a list means, and says where it may be if it is not there."""

from __future__ import annotations

import itertools
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence

from effnetv2_keras.data.formats import IMAGE_SUFFIXES

_MOST_FOLDERS = 200  # looked into for a file that is not where the list says


def find_listed(folder: pathlib.Path, written: str, encoding: str) -> str | None:
    """Returns the path of the file that a list names, or None if there is no such file.

    Args:
        folder: folder of the list.
        written: path of the image, absolute or relative to the folder. Backslashes may stand for slashes, and letters
            with accents may be stored in other bytes than in the list.
        encoding: encoding of the list.
    """
    plain = str(folder / written)
    if os.path.isfile(plain):
        return plain
    for name in _spellings(written, encoding):
        path = str(folder / name)
        if os.path.isfile(path):
            return path
    return None


def _spellings(written: str, encoding: str) -> Iterator[str]:
    for name in dict.fromkeys((written, written.replace("\\", "/"))):
        yield name
        if not name.isascii():
            yield unicodedata.normalize("NFC", name)
            yield unicodedata.normalize("NFD", name)
            for other in dict.fromkeys((encoding, "cp1252")):
                yield os.fsdecode(name.encode(other, "replace"))


def advise(folder: pathlib.Path, written: str, template: str | None, every: Sequence[str] = ()) -> str:
    """Returns what to do about an image that is not where a list says, for an error message.

    Looks for the file, also with the suffix of an image, in the folder of the list and two levels below it.

    Args:
        folder: folder of the list.
        written: what the list has for the image.
        template: ``data.path_template``.
        every: what the list has for all images; a new template must serve for them too.
    """
    parts = [part for part in written.replace("\\", "/").split("/") if part]
    suffixes = ("", *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
    stem, ending = os.path.splitext(parts[-1]) if parts else ("", "")
    others = [stem + suffix for suffix in suffixes if suffix and ending.lower() in IMAGE_SUFFIXES]
    for place in itertools.islice(_folders(folder), _MOST_FOLDERS):
        for first, suffix in itertools.product(range(len(parts)), suffixes):
            tail = "/".join(parts[first:])
            found = place / (tail + suffix)
            if not os.path.isfile(found):
                continue
            below = found.relative_to(folder).as_posix()
            if written.replace("\\", "/") == tail:
                new = f"{below[: -len(tail + suffix)]}{{}}{suffix}"
                missing = sum(not (folder / new.replace("{}", cell)).is_file() for cell in every)
                if not missing:
                    return f"There is {below}. Set --hparam_str=data.path_template={new}"
                return (
                    f"There is {below}, but {missing} of the images are not found like that. Put the images into one "
                    "folder, or write the path of each into the list."
                )
            return f"There is {below}. Change the paths in the list to that."
        for name in others:
            if os.path.isfile(place / name):
                below = (place / name).relative_to(folder).as_posix()
                return f"There is {below}. Change the paths in the list to that, or rename the files."
    if template:
        return f"The path is made from data.path_template={template}. It is relative to the folder of the list."
    return (
        "Paths are relative to the folder of the list. If the list has names without folder or suffix, set "
        "data.path_template, such as images/{}.jpg."
    )


def _folders(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder, those in it, and those in these, without hidden ones."""
    level = [root]
    for _ in range(3):
        yield from level
        level = [
            pathlib.Path(entry.path)
            for folder in level[:_MOST_FOLDERS]
            for entry in _entries(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        ]


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
