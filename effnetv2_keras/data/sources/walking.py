"""Finds the image files below a folder: follows links, leaves out what is no photograph, and says what it left out."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping

from absl import logging

from effnetv2_keras.data.formats import IMAGE_SUFFIXES
from effnetv2_keras.data.sources.base import DataError

OTHER_IMAGE_SUFFIXES = frozenset(
    ".hif .jp2 .j2k .jpx .jxl .jxr .ppm .pgm .pbm .pnm .tga .ico .psd .svg .exr .hdr .dcm .dng .cr2 .cr3 .nef .arw "
    ".orf .rw2 .raf .raw .pef .srw".split()
)
"""Suffixes of other image files. If a folder has more of them than of images that can be decoded, reading it would
silently lose most of the data."""

_LEFTOVERS = frozenset(
    (
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information",
        "lost+found", "lost.dir", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp",
        "#recycle", "#snapshot", "network trash folder", "temporary items",
    )
)  # fmt: skip
"""Names, in lower case, of files and folders that archives, operating systems, network drives and editors leave."""

_SHOWN = 5  # names or suffixes in a message


def is_leftover(name: str) -> bool:
    """Returns whether a file or folder was left by a program, or is hidden: ``.git``, ``._a.jpg``, ``@eaDir``, ``a~``.

    Args:
        name: the name without its folder.
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in _LEFTOVERS


@dataclasses.dataclass(frozen=True)
class Found:
    """What is below a folder, without leftovers.

    Attributes:
        images: paths of the image files, sorted.
        missing: links whose target does not exist, and folders that cannot be opened.
        folders: paths of the folders below it, in no order.
        left_out: number of other files by suffix, in lower case; the suffix of a name without one is empty.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def num_other_images(self) -> int:
        """Number of files that are images of a kind that cannot be decoded."""
        return sum(count for suffix, count in self.left_out.items() if suffix in OTHER_IMAGE_SUFFIXES)


def find_image_files(folder: str | os.PathLike[str]) -> Found:
    """Returns the images below a folder.

    Links to files and folders are followed. A folder that can be reached in several ways is read once, under its own
    path if it has one below ``folder``. A link to ``folder`` itself or to a folder that contains it is not followed.

    Args:
        folder: path of an existing folder.
    """
    found = Found()
    top = os.path.realpath(folder)
    above = {top}
    while (parent := os.path.dirname(top)) != top:
        above.add(top := parent)
    visited: set[str] = set()
    waiting = collections.deque([os.fspath(folder)])
    while waiting:  # links wait until the folders are read, so that a file keeps its own path
        path = waiting.popleft()
        if not visited or os.path.realpath(path) not in above:
            waiting.extend(_read_tree(path, found, visited))
    found.images.sort()
    found.missing.sort()
    return found


def _read_tree(top: str, found: Found, visited: set[str]) -> list[str]:
    """Adds the files below a folder to ``found``; returns the links to folders, sorted."""
    links: list[str] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        place = os.path.realpath(folder)
        if place in visited:
            continue
        if visited:
            found.folders.append(folder)
        visited.add(place)
        for entry in list_folder(folder, found):
            is_folder, exists = _kind(entry)
            suffix = os.path.splitext(entry.name)[1].lower()
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif exists:
                _add_file(entry, found)
            elif suffix in ("", *IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES):
                found.missing.append(entry.path)
            else:  # a broken link or a special file
                found.left_out[suffix] += 1
    return sorted(links)


def _add_file(entry: os.DirEntry[str], found: Found) -> None:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        found.images.append(entry.path)
    else:
        found.left_out[suffix] += 1


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Returns whether an entry is a folder, and whether it is a folder or a file; a link counts as its target."""
    try:
        is_folder = entry.is_dir()
        return is_folder, is_folder or entry.is_file()
    except OSError:  # a link to itself, or a target that this user may not see
        return False, False


def list_folder(folder: str | os.PathLike[str], found: Found) -> Iterator[os.DirEntry[str]]:
    """Yields the entries of a folder except leftovers; a folder that cannot be opened goes to ``found.missing``."""
    try:
        with os.scandir(folder) as entries:
            yield from [entry for entry in entries if not is_leftover(entry.name)]
    except OSError:
        found.missing.append(os.fspath(folder))


def sub_folders(folder: str | os.PathLike[str], found: Found) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without leftovers; links to folders count.

    Args:
        folder: path of the folder.
        found: where the files in the folder and broken links go.
    """
    names = []
    for entry in list_folder(folder, found):
        is_folder, exists = _kind(entry)
        if is_folder:
            names.append(entry.name)
        elif not exists:
            found.missing.append(entry.path)
        else:
            _add_file(entry, found)
    return sorted(names)


def report_left_out(
    place: str | os.PathLike[str], parts: Mapping[str, Found], outside: Found | None = None, *, skip: bool
) -> None:
    """Logs which files are left out, and refuses to lose images without being asked to.

    Args:
        place: the folder, for messages.
        parts: what was found, by class or by folder.
        outside: what was found in the folder itself, outside of the parts.
        skip: whether images that cannot be read may be left out, as with ``data.unreadable=skip``; then there is a
            warning instead of an error.

    Raises:
        DataError: if there are broken links or folders that cannot be opened, or if a part has more images of other
            kinds than images that can be decoded.
    """
    every = [*parts.values(), *([outside] if outside else [])]
    missing = [path for found in every for path in found.missing]
    problems = []
    if missing:
        problems.append(f"{place}: cannot open {_listed(missing)}. Repair or remove the link or folder")
    lost = {name: found for name, found in parts.items() if found.num_other_images > len(found.images)}
    if lost:
        readable = sum(len(found.images) for found in lost.values())
        problems.append(
            f"Most images of {_listed([repr(name) for name in lost])} in {place} are of kinds that cannot be read: "
            f"{describe(found.left_out for found in lost.values())}, beside {readable} files that can be read "
            f"({', '.join(IMAGE_SUFFIXES)}). Convert them to JPEG or PNG"
        )
    if problems and not skip:
        raise DataError(
            ". Also: ".join(problems) + ", or set --hparam_str=data.unreadable=skip to leave them out with a warning."
        )
    if missing:
        logging.warning("%s: left out what cannot be opened: %s.", place, _listed(missing))
    if outside and outside.images:
        logging.warning(
            "%s: left out %d images that are in no class folder: %s.", place, len(outside.images),
            _listed(sorted(outside.images)),
        )  # fmt: skip
    left_out = sum(sum(found.left_out.values()) for found in every)
    if left_out:
        other_images = any(found.num_other_images for found in every)
        (logging.warning if other_images else logging.info)(
            "%s: left out %d files: %s. Images are %s.", place, left_out,
            describe(found.left_out for found in every), ", ".join(IMAGE_SUFFIXES),
        )  # fmt: skip


def describe(left_out: Iterable[collections.Counter[str]]) -> str:
    """Returns numbers of files by suffix, such as "6 .webp, 4 .txt", the most frequent first."""
    total: collections.Counter[str] = collections.Counter()
    for counts in left_out:
        total.update(counts)
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {suffix or 'without a suffix'}" for suffix, count in ranked[:_SHOWN]]
    rest = sum(count for _, count in ranked[_SHOWN:])
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _listed(names: list[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
