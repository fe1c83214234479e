"""Exact arithmetic with numbers as they are written, so that rounding down does not lose a step (no TensorFlow).

The float 2.3 is slightly less than 23/10, so ``int(2.3 * 100 / 10)`` is 22, and 23 is meant.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Union

Number = Union[int, float, Fraction]


def exact(number: Number) -> Fraction:
    """Returns a finite number as the fraction that its shortest decimal notation denotes: 2.3 is 23/10."""
    return number if isinstance(number, Fraction) else Fraction(str(number))
