"""The primary metric, by which evaluations are compared: top-1, or mAP for multi-label images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def primary_metric(row: Mapping[str, Any]) -> tuple[str, str]:
    """Returns key and name of the metric by which evaluations are compared.

    Args:
        row: metrics of an evaluation.

    Returns:
        ``("map", "mAP")`` for multi-label images, otherwise ``("top1", "top-1")``. The suffix of a model follows the
        key.
    """
    return ("map", "mAP") if "map" in row or "map_ema" in row else ("top1", "top-1")


def primary_metric_key(row: Mapping[str, Any]) -> str:
    """Returns the key of the primary metric of the moving average, or of the raw weights if there is no average."""
    key, _ = primary_metric(row)
    return f"{key}_ema" if f"{key}_ema" in row else key


def ema_gap(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the primary metric of the moving average of the weights minus that of the raw weights.

    Returns:
        A dict with ``ema_gap``; empty if there is no moving average.
    """
    key, _ = primary_metric(row)
    return {"ema_gap": row[f"{key}_ema"] - row[key]} if f"{key}_ema" in row else {}
