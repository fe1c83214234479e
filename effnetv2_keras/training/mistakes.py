"""The most confident wrong answers of an evaluation, with their images."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        image: the image as the network gets it, ``[S, S, 3]``.
        true: the true classes.
        predicted: the most likely class.
        probability: the probability of that class, in [0, 1].
    """

    image: npt.NDArray[Any]
    true: tuple[int, ...]
    predicted: int
    probability: float


class Mistakes:
    """Keeps the most confident of the wrong answers that are added batch by batch.

    Args:
        count: largest number to keep.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Mistake]] = []

    def update(
        self, counted: npt.NDArray[np.bool_], answers: npt.NDArray[Any], labels: npt.NDArray[Any], images: Any
    ) -> None:
        """Adds a batch.

        Args:
            counted: ``[batch]``, False for an image to leave out.
            answers: ``[batch, 3]``, for each image the most likely class, its probability, and 1 if it is right.
            labels: ``[batch]`` true classes, or multi-hot ``[batch, classes]``.
            images: ``[batch, S, S, 3]`` tensor; only the images that are kept are copied to the host.
        """
        for position in np.flatnonzero(counted & (answers[:, 2] == 0)):
            predicted, probability, _ = answers[position].tolist()
            if len(self._heap) == self._count and not (self._heap and probability > self._heap[0][0]):
                continue
            label = labels[position]
            true = tuple(np.flatnonzero(label).tolist()) if np.ndim(label) else (int(label),)
            mistake = Mistake(images[int(position)].numpy(), true, int(predicted), probability)
            push = heapq.heappushpop if len(self._heap) == self._count else heapq.heappush
            push(self._heap, (probability, -next(self._order), mistake))

    def worst(self) -> list[Mistake]:
        """Returns the mistakes that were kept, the most confident one first."""
        return [mistake for *_, mistake in sorted(self._heap, key=lambda item: item[:2], reverse=True)]
