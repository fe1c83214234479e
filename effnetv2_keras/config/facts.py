"""What a recipe knows about the data and the user's choices before it chooses settings (no TensorFlow)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts by which a recipe for your own images chooses settings.

    Attributes:
        num_train: number of training images, at least 1.
        shorter_side: median of the shorter sides of the images, pixels; None if it is not known.
        weights: ``train.ft_init_ckpt`` as the user gave it; empty for random weights, None if it was not given.
    """

    num_train: int = 3_000
    shorter_side: int | None = None
    weights: str | None = None


USUAL = Facts()
"""The facts that are assumed if the images are not read."""
