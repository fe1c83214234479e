"""The report on which weights were loaded, and the error if weights do not fit."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from effnetv2_keras.errors import UsageError
from effnetv2_keras.weights.layout import Shape


class Mismatch(NamedTuple):
    """A weight whose shape in the file differs from its shape in the model."""

    name: str
    in_file: Shape
    in_model: Shape

    def __str__(self) -> str:
        return f"{self.name} {self.in_file} in the file, {self.in_model} in the model"


@dataclasses.dataclass(frozen=True)
class WeightReport:
    """The result of ``load_weights``.

    Attributes:
        source: the file and its format.
        loaded: canonical names of the weights that were loaded from the file.
        skipped: names of everything else in the file, such as optimizer slots, or weights whose average was loaded.
        missing: names of weights of the model that are not in the file; they keep their values.
        mismatched: weights with another shape in the file; they keep their values in the model.
        adapted: names of loaded kernels that were adapted to another number of image channels.
        warnings: reasons why the weights may be those of another network, although names and shapes fit.
    """

    source: str
    loaded: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    adapted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns the report as one paragraph."""
        kept = [*(f"{name} is not in the file" for name in self.missing), *map(str, self.mismatched)]
        parts = [f"Loaded {len(self.loaded)} of {len(self.loaded) + len(kept)} weights from {self.source}."]
        if kept:
            parts.append(f"Left at their initial values: {'; '.join(kept)}.")
        if self.adapted:
            parts.append(f"Adapted to the number of image channels: {', '.join(self.adapted)}.")
        if self.skipped:
            parts.append(f"Not used from the file: {shortened(self.skipped)}.")
        return " ".join([*parts, *(f"Warning: {warning}" for warning in self.warnings)])


class WeightsError(UsageError):
    """Weights that cannot be found, downloaded or read, or do not fit; the model is unchanged.

    Attributes:
        report: which weights fit and which do not, if the file could be read; otherwise None.
    """

    def __init__(self, message: str, report: WeightReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def shortened(names: tuple[str, ...], limit: int = 5) -> str:
    """Returns the first few names, and the number of the others."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
