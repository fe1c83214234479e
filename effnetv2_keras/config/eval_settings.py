"""The ``eval`` section of a configuration, and the steps between two evaluations (no TensorFlow)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import pydantic

from effnetv2_keras.basics.exact import exact
from effnetv2_keras.config.fields import OptionalFloat, OptionalInt, OptionalMetric, Section, Sizes, setting

_LEAST_STEPS = 100
"""Steps between two evaluations if neither the epochs nor the steps are set. Fewer would make a run of many short
epochs, as in fine-tuning, evaluate for most of its time."""


class EvalConfig(Section):
    """Evaluation."""

    batch_size: int = setting(
        64,
        "images per evaluation step over all replicas, rounded up to a multiple of their number",
        ge=1,
        unit="images",
        source="reference code",
    )
    isize: OptionalInt = setting(
        None,
        "side of the evaluation images, pixels; None uses the evaluation size of the network",
        ge=1,
        unit="pixels",
        source="reference code",
    )
    sizes: Sizes = setting(
        (),
        "--mode=eval: image sides to compare, pixels, such as 224|300; empty evaluates at eval.isize only",
        unit="pixels",
    )
    best_metric: OptionalMetric = setting(
        None,
        "figure that chooses the best checkpoint, computed with the averaged weights if there are any: top1, top5, "
        "macro_f1, balanced_accuracy, ece or loss (for ece and loss, the smallest value is best), or map for images "
        "with several labels; None is top1, or map if images have several labels",
    )
    tta: Literal["none", "flip", "flip+crops"] = setting(
        "none",
        "--mode=eval and predict: test-time augmentation, which averages the probabilities of several views of each "
        "image; none is one view; flip is the image and its mirror image, twice the time; flip+crops is the center and "
        "the four corners, each with its mirror image, ten times the time. Evaluations during training and exports "
        "never use it",
    )
    every_epochs: OptionalFloat = setting(
        None,
        "epochs between two evaluations, above 0, which may be a fraction; the end of the run always has one; None is "
        "1, or more where eval.min_steps asks for it",
        unit="epochs",
    )
    min_steps: OptionalInt = setting(
        None,
        "smallest number of steps between two evaluations; shorter periods are multiplied until they reach it; None is "
        "0 if eval.every_epochs is set, and otherwise 100, or a tenth of the run if that is less",
        ge=0,
        unit="steps",
    )

    @pydantic.field_validator("every_epochs")
    @classmethod
    def _above_zero(cls, epochs: float | None) -> float | None:
        if epochs is not None and epochs <= 0:
            raise ValueError("must be greater than 0")
        return epochs

    def period(self, *, steps_per_epoch: Fraction, total_steps: int) -> Fraction:
        """Returns the number of steps between two evaluations, which may be a fraction.

        Args:
            steps_per_epoch: training images divided by the batch size, not rounded.
            total_steps: number of steps of the run.
        """
        least = self.min_steps
        if least is None:
            least = min(_LEAST_STEPS, total_steps // 10) if self.every_epochs is None else 0
        shortest = exact(self.every_epochs or 1) * steps_per_epoch
        return shortest * max(1, math.ceil(least / shortest))
