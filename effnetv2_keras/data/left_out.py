"""Counts the images of a split that cannot be decoded, and decides whether the rest is still the data set."""

from __future__ import annotations

import collections
from collections.abc import Collection, Container, Sequence

import numpy as np
import numpy.typing as npt

from effnetv2_keras.basics.text_files import printable
from effnetv2_keras.data.formats import NOT_AN_IMAGE
from effnetv2_keras.data.sources.base import DataError, FileSource, Source

_NAMED, _REASONS = 10, 3


def first_names(names: Collection[str]) -> str:
    """Returns the first ten names, and how many more there are."""
    listed = [*map(printable, names)]
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def without(source: FileSource, left_out: Container[str]) -> FileSource:
    """Returns a source of the same files in the same order, except those whose paths are in ``left_out``."""
    kept = {path: labels for path, labels in source.labels_of.items() if path not in left_out}
    rows = list(kept.values()) if source.multi_label else [labels[0] for labels in kept.values()]
    rest = FileSource(list(kept), rows, source.class_names)
    rest.root = source.root
    return rest


class LeftOut:
    """The images of one split that are left out because they cannot be decoded.

    Args:
        source: the split.
        max_share: the largest share of them to accept, in [0, 1].

    Attributes:
        source: the split.
        labels: the labels of each image that is left out, by its name, in the order in which they were found.
        reasons: why each of them cannot be read, by its name.
        readable: bool ``[classes]``: whether an image of the class was read.
    """

    def __init__(self, source: Source, max_share: float) -> None:
        self.source = source
        self._max_share = max_share
        self.labels: dict[str, tuple[int, ...]] = {}
        self.reasons: dict[str, str] = {}
        self.readable: npt.NDArray[np.bool_] = np.zeros(len(source.class_names), np.bool_)

    def add(self, name: str, labels: tuple[int, ...], reason: str = "") -> None:
        """Adds an image; the reason is a clause such as "it holds floats", or empty if it is not known."""
        self.labels[name] = labels
        self.reasons[name] = reason or f"it is {NOT_AN_IMAGE}"

    def why(self, names: Collection[str] | None = None) -> str:
        """Returns the most frequent reasons why images cannot be read.

        Args:
            names: the images; None for all that are left out.
        """
        counts = collections.Counter(self.reasons[name] for name in (self.labels if names is None else names))
        ranked = [reason for reason, _ in counts.most_common()]
        more = [f"{len(ranked) - _REASONS} other reasons"] if len(ranked) > _REASONS else []
        return "; ".join([*ranked[:_REASONS], *more])

    def by_class(self, totals: Sequence[int] = ()) -> str:
        """Returns the number of images left out of each class, most first.

        Args:
            totals: number of images of each class; empty if they are not known.
        """
        counts = collections.Counter(label for labels in self.labels.values() for label in labels)
        texts = [
            f"{self._class(label)}: {count}" + (f" of {totals[label]}" if totals else "")
            for label, count in counts.most_common()
        ]
        return first_names(texts) or "no class"

    def check_share(self, images: int, totals: Sequence[int] = ()) -> None:
        """Raises ``DataError`` if more than ``max_share`` of ``images`` images are left out.

        Args:
            images: number of different images that this process reads.
            totals: as for ``by_class``.
        """
        if len(self.labels) > self._max_share * images:
            raise DataError(
                f"At least {len(self.labels):,} of {images:,} images cannot be decoded ({self.by_class(totals)}), but "
                f"data.max_unreadable={self._max_share:g} accepts at most {int(self._max_share * images):,}: "
                f"{first_names(self.labels)} ({self.why()}). Repair or remove them, or raise "
                "data.max_unreadable."
            )

    def check_classes(self) -> None:
        """Raises ``DataError`` if no image of a class can be read; call it when all images have been tried."""
        tried = {label for labels in self.labels.values() for label in labels}
        lost = sorted(label for label in tried if not self.readable[label])
        if lost:
            names = [name for name, labels in self.labels.items() if set(labels) & set(lost)]
            classes = first_names([self._class(label) for label in lost])
            raise DataError(
                f"No image of {'the class' if len(lost) == 1 else 'the classes'} {classes} can be decoded: "
                f"{first_names(names)} ({self.why(names)}). data.unreadable=skip leaves out single "
                "images, never a whole class. Repair the images, or remove the class."
            )

    def _class(self, label: int) -> str:
        return repr(self.source.class_names[label])
