"""Which figure of an evaluation stands for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def primary_metric(row: Mapping[str, Any]) -> tuple[str, str]:
    """Names the figure by which evaluations are compared, as a key of their rows and in words.

    Returns:
        mAP where images have several labels, top-1 otherwise; a model's suffix comes after the key.
    """
    return ("map", "mAP") if "map" in row or "map_ema" in row else ("top1", "top-1")


def primary_metric_key(row: Mapping[str, Any]) -> str:
    """The key of that figure of the averaged weights, or of the raw ones where there is no average."""
    key, _ = primary_metric(row)
    return f"{key}_ema" if f"{key}_ema" in row else key


def ema_gap(row: Mapping[str, Any]) -> dict[str, float]:
    """How far the averaged weights are ahead of the raw ones, by that figure.

    Returns:
        ``ema_gap``; nothing where there is no average.
    """
    key, _ = primary_metric(row)
    return {"ema_gap": row[f"{key}_ema"] - row[key]} if f"{key}_ema" in row else {}
