"""Decodes every image file as a whole before training, and compares the contents of files.

A random crop of a truncated JPEG can be decoded if it lies above the break, so a run would end at such a file in some
later epoch. This check decides once for each file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional

import rich.console
import rich.progress
import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.decode import decode
from effnetv2_keras.data.formats import NOT_AN_IMAGE, Reading, reason_in
from effnetv2_keras.data.left_out import LeftOut, first_names
from effnetv2_keras.data.sources.base import DataError, FileSource
from effnetv2_keras.data.verified_files import Stamp, VerifiedFiles, stamps_of

_FILES, _BYTES = 64, 16 << 20
"""A thread reads at most so many files, or about so many bytes, before it decodes them."""

_WhyNot = Callable[[list[bytes]], Optional[str]]
OnChecked = Callable[[int, int], None]
"""Called with the number of files checked so far, and the number of files to check."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """The contents of image files.

    Attributes:
        digests: BLAKE2b checksum, hexadecimal, of every file that can be decoded, by its path.
        unreadable: why each of the others cannot be read, by its path.
    """

    digests: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_contents(
    paths: Sequence[str],
    folder: str | os.PathLike[str],
    reading: Reading | None = None,
    on_checked: OnChecked | None = None,
) -> Contents:
    """Reads and decodes files in parallel, except those that have not changed since they were last verified.

    Args:
        paths: the image files, each once.
        folder: the folder of the data, under which the result is remembered.
        reading: how the files are read; None for the usual way.
        on_checked: called in this thread after each group of files. If it raises an error, the files checked so far
            are remembered.
    """
    reading = reading or Reading()
    remembered, stamps = VerifiedFiles(folder, f"{reading.place} {reading.max_value}"), stamps_of(paths)
    digests = remembered.digests(stamps)
    new: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    left = [path for path in paths if path not in digests]
    why_not = _decoder(reading)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        checked = 0
        for group in pool.map(lambda group: _read_group(group, why_not), _groups(left, stamps)):
            for path, (digest, reason) in group.items():
                if digest is None:
                    unreadable[path] = reason
                else:
                    new[path] = digest
            checked += len(group)
            if on_checked:
                on_checked(checked, len(left))
    finally:
        pool.shutdown(cancel_futures=True)
        if new:
            remembered.remember({**digests, **new}, stamps)
    return Contents({**digests, **new}, unreadable)


def _groups(paths: Sequence[str], stamps: Mapping[str, Stamp | None]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for path in paths:
        group.append(path)
        size += (stamps[path] or (0, 0))[0]
        if len(group) == _FILES or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _read_group(paths: Sequence[str], why_not: _WhyNot) -> dict[str, tuple[str | None, str]]:
    """Returns for each path its checksum, or None and the reason why the file cannot be read."""
    found: dict[str, tuple[str | None, str]] = {}
    contents: dict[str, bytes] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                contents[path] = file.read()
        except OSError as error:
            found[path] = (None, error.strerror or str(error))
    whole = why_not(list(contents.values())) is None
    for path, content in contents.items():
        reason = None if whole else why_not([content])
        digest = hashlib.blake2b(content, digest_size=16).hexdigest() if reason is None else None
        found[path] = (digest, reason or "")
    return {path: found[path] for path in paths}


@functools.lru_cache(maxsize=8)
def _decoder(reading: Reading) -> _WhyNot:
    """Returns a function that decodes files one after the other; it returns why one is refused, or None if none is."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def sizes(files: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda file: tf.size(decode(file, reading)), files, fn_output_signature=tf.int32, parallel_iterations=1
        )

    def why_not(files: list[bytes]) -> str | None:
        try:
            with tf.device("/cpu:0"):
                sizes(tf.constant(files, tf.string))
        except tf.errors.OpError as error:
            return reason_in(error) or f"it is {NOT_AN_IMAGE}"
        return None

    return why_not


def verify(
    sources: Mapping[str, FileSource], data: DataConfig, on_checked: OnChecked | None = None
) -> dict[str, LeftOut]:
    """Checks the files of splits, and warns about identical images.

    Args:
        sources: the splits by name, for messages.
        data: the data settings.
        on_checked: as for ``read_contents``.

    Returns:
        The unreadable images of each split, by its name; with ``data.unreadable=error`` there are none.

    Raises:
        DataError: with ``data.unreadable=error``, if a file cannot be decoded; with ``skip``, if more than
            ``data.max_unreadable`` of a split cannot be decoded, or no image of a class.
    """
    paths = [path for source in sources.values() for path in source.labels_of]
    if not paths:
        return {}
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths]
    reading = Reading.of(data, service=bool(data.service))
    contents = read_contents(paths, data.data_dir or os.path.commonpath(parents), reading, on_checked)
    if contents.unreadable and data.unreadable == "error":
        count = len(contents.unreadable)
        reasons = collections.Counter(contents.unreadable.values())
        named = [path if len(reasons) == 1 else f"{path} ({reason})" for path, reason in contents.unreadable.items()]
        raise DataError(
            f"Cannot decode {first_names(named)}: {f'{count:,} of the ' if count > 1 else 'one of the '}"
            f"{len(paths):,} image files cannot be used ({', '.join(reasons)}). Repair or remove "
            f"{'them' if count > 1 else 'it'}, or set --hparam_str=data.unreadable=skip to leave out unreadable images."
        )
    left_out = {name: _left_out(name, source, data, contents) for name, source in sources.items()}
    _warn_of_twins(sources, contents.digests)
    return left_out


def _left_out(name: str, source: FileSource, data: DataConfig, contents: Contents) -> LeftOut:
    """Returns the unreadable images of a split, and warns about them."""
    left_out = LeftOut(source, data.max_unreadable)
    totals = [0] * len(source.class_names)
    for path, labels in source.labels_of.items():
        for label in labels:
            totals[label] += 1
            left_out.readable[label] |= path in contents.digests
        if path in contents.unreadable:
            left_out.add(path, labels, contents.unreadable[path])
    left_out.check_share(source.num_examples, totals)
    left_out.check_classes()
    if left_out.labels:
        logging.warning(
            "Leaving out %d of %d %s images that cannot be decoded (%s): %s (%s)", len(left_out.labels),
            source.num_examples, name, left_out.by_class(totals), first_names(left_out.labels), left_out.why(),
        )  # fmt: skip
    return left_out


def _warn_of_twins(sources: Mapping[str, FileSource], digests: Mapping[str, str]) -> None:
    """Warns about identical images in several splits, and with different labels."""
    groups: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {}
    for name, source in sources.items():
        for path, labels in source.labels_of.items():
            if path in digests:
                groups.setdefault(digests[path], []).append((name, path, labels))
    twins = [group for group in groups.values() if len(group) > 1]
    shared = [group for group in twins if len({name for name, *_ in group}) > 1]
    if shared:
        count = sum(name == shared[0][-1][0] for group in shared for name, *_ in group)
        logging.warning(
            "%d evaluation images are identical to training images, so the measured accuracy is too high: %s. Remove "
            "them from one of the splits.", count, first_names([f"{group[-1][1]} = {group[0][1]}" for group in shared]),
        )  # fmt: skip
    differing = [group for group in twins if len({frozenset(labels) for *_, labels in group}) > 1]
    if differing:
        classes = next(iter(sources.values())).class_names
        examples = [
            " = ".join(f"{path} ({', '.join(classes[label] for label in labels)})" for _, path, labels in group)
            for group in differing
        ]
        logging.warning(
            "%d images have copies with other labels, so some of these labels are wrong: %s. Correct the labels or "
            "remove the copies.", len(differing), first_names(examples),
        )  # fmt: skip


@contextlib.contextmanager
def shown(console: rich.console.Console, what: str = "checking images") -> Iterator[OnChecked]:
    """Shows a bar on a terminal, and elsewhere logs how far the work is, inside a ``with`` block."""
    columns = (rich.progress.SpinnerColumn(), *rich.progress.Progress.get_default_columns())
    bar = rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar, doing(what) as activity:
        task = bar.add_task(what, total=None)

        def on_checked(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            activity.count(done, total)
            if not console.is_terminal:
                logging.log_every_n_seconds(logging.INFO, "%s: %d of %d.", 5, what.capitalize(), done, total)

        yield on_checked
