"""The image files that ``--mode=predict`` classifies: files and folders of the command line."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Literal

from effnetv2_keras.data.formats import IMAGE_SUFFIXES
from effnetv2_keras.data.left_out import first_names
from effnetv2_keras.data.sources.walking import Found, describe, find_image_files, report_left_out
from effnetv2_keras.modes.predictor import PredictError

Unreadable = Literal["error", "skip", "include"]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file to classify, or a path that cannot be classified.

    Attributes:
        path: the path.
        problem: a clause that says why it cannot be classified; empty if it is a file.
    """

    path: pathlib.Path
    problem: str = ""


def find_images(paths: Sequence[str | os.PathLike[str]], *, unreadable: Unreadable = "error") -> list[pathlib.Path]:
    """Returns image files: paths of files as they are, and for paths of folders all image files below them, sorted.

    Hidden files, and what programs leave in folders, are no images; see ``walking.find_image_files``.

    Args:
        paths: files with any suffix, and folders.
        unreadable: ``"skip"`` warns of broken links and of images of other kinds in folders; ``"error"`` raises an
            error if there are broken links, or more images of other kinds than images that can be decoded.

    Raises:
        PredictError: if there are no paths, a path does not exist, or a folder contains no images.
        DataError: as described for ``unreadable``.
    """
    images: list[pathlib.Path] = []
    for path in _checked(paths):
        if os.path.isdir(path):
            found = find_image_files(path)
            report_left_out(path, {str(path): found}, skip=unreadable == "skip")
            if not found.images:
                raise PredictError(f"There are {_no_images(found, f'the folder {path}')}. Name another.")
            images += sorted(map(pathlib.Path, found.images))
        elif os.path.isfile(path):
            images.append(path)
        else:
            raise PredictError(f"There is no file or folder {path} that can be opened. Correct the path.")
    return images


def list_images(paths: Sequence[str | os.PathLike[str]]) -> list[Listed]:
    """Returns the files of ``find_images`` and, instead of an error for one path, that path with its problem.

    A warning names what is left out of folders. A folder with more images of kinds that cannot be decoded than images
    that can is listed with that problem, after its images.

    Args:
        paths: files with any suffix, and folders.

    Raises:
        PredictError: if there are no paths, or all have a problem.
    """
    listed: list[Listed] = []
    for path in _checked(paths):
        if os.path.isdir(path):
            listed += _list_folder(path)
        elif os.path.isfile(path):
            listed.append(Listed(path))
        else:
            listed.append(Listed(path, "there is no such file or folder that can be opened"))
    if all(item.problem for item in listed):
        problems = first_names([f"{item.path} ({item.problem})" for item in listed])
        raise PredictError(f"None of the paths is an image that can be opened: {problems}. Correct the paths.")
    return listed


def _list_folder(folder: pathlib.Path) -> list[Listed]:
    found = find_image_files(folder)
    report_left_out(folder, {str(folder): found}, skip=True)
    listed = [Listed(pathlib.Path(path)) for path in found.images]
    listed += [Listed(pathlib.Path(path), "the link or folder cannot be opened") for path in found.missing]
    listed.sort(key=lambda item: item.path)
    if found.num_other_images > len(found.images):
        kinds = describe([found.left_out])
        listed.append(Listed(folder, f"most of its images are of kinds that cannot be read: {kinds}"))
    elif not listed:
        listed.append(Listed(folder, f"there are {_no_images(found, 'it')}"))
    return listed


def _checked(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Returns the paths with the home folder for ``~``; raises ``PredictError`` if there are none or one is empty."""
    if not paths:
        raise PredictError("There are no images to predict. Name files or folders with --images or after the flags.")
    if not all(os.fspath(path) for path in paths):
        raise PredictError(
            "The path of an image is empty. Perhaps a variable of the shell is not set. Name a file or folder; '.' is "
            "the current folder."
        )
    return [pathlib.Path(os.path.expanduser(path)) for path in paths]


def _no_images(found: Found, folder: str) -> str:
    left_out = describe([found.left_out])
    return f"no images ({', '.join(IMAGE_SUFFIXES)}) in or below {folder}{f', only {left_out}' if left_out else ''}"
