"""What became of every weight, and the error if that is not what it should be."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from effnetv2_keras.errors import UsageError
from effnetv2_keras.weights.layout import Shape


class Mismatch(NamedTuple):
    """A weight that has one shape in the file and another in the model."""

    name: str
    in_file: Shape
    in_model: Shape

    def __str__(self) -> str:
        return f"{self.name} {self.in_file} in the file, {self.in_model} in the model"


@dataclasses.dataclass(frozen=True)
class WeightReport:
    """What ``load_weights`` did.

    Attributes:
        source: the file, and its format in words.
        loaded: canonical names of the weights that the model now has from the file.
        skipped: names of what else is in the file, such as optimizer slots, or weights before averaging.
        missing: names of weights of the model that the file lacks; they keep their values.
        mismatched: weights of another shape in the file; they keep their values in the model.
        adapted: names of loaded kernels that were made to fit another number of image channels.
    """

    source: str
    loaded: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    adapted: tuple[str, ...] = ()

    def describe(self) -> str:
        """The report in one paragraph."""
        kept = [*(f"{name} is not in the file" for name in self.missing), *map(str, self.mismatched)]
        parts = [f"Loaded {len(self.loaded)} of {len(self.loaded) + len(kept)} weights from {self.source}."]
        if kept:
            parts.append(f"Left at their initial values: {'; '.join(kept)}.")
        if self.adapted:
            parts.append(f"Made to fit the images' channels: {', '.join(self.adapted)}.")
        if self.skipped:
            parts.append(f"Not used of the file: {shortened(self.skipped)}.")
        return " ".join(parts)


class WeightsError(UsageError):
    """Weights that cannot be had or do not fit; the model is as it was.

    Attributes:
        report: what would have become of every weight, where the file could be read.
    """

    def __init__(self, message: str, report: WeightReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def shortened(names: tuple[str, ...], limit: int = 5) -> str:
    """The first few names, and how many there are beyond them."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
