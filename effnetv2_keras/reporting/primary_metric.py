"""The primary metric, by which evaluations are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def primary_metric(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the key and the name of the metric by which evaluations are compared.

    Args:
        row: a row of evaluation metrics.

    Returns:
        mAP if images have several labels, otherwise top-1. In rows, the suffix of a model follows the key.
    """
    return ("map", "mAP") if "map" in row or "map_ema" in row else ("top1", "top-1")


def primary_metric_key(row: Mapping[str, Any]) -> str:
    """Returns the key of the primary metric of the averaged weights, or of the raw ones if there is no average."""
    key, _ = primary_metric(row)
    return f"{key}_ema" if f"{key}_ema" in row else key


def ema_gap(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the primary metric of the averaged weights minus that of the raw weights.

    Returns:
        A dict with the key ``ema_gap``; empty if there is no average.
    """
    key, _ = primary_metric(row)
    return {"ema_gap": row[f"{key}_ema"] - row[key]} if f"{key}_ema" in row else {}
