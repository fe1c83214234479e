"""The primary metric, by which evaluations are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError

_NAMES = {
    "top1": "top-1", "top5": "top-5", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy", "ece": "ECE",
    "eval_loss": "loss", "map": "mAP",
}  # fmt: skip
_SMALLER = ("ece", "eval_loss")
_ONE_LABEL, _SEVERAL_LABELS = ("balanced_accuracy", "ece"), ("map",)


def check_best_metric(config: Config, *, several: bool) -> None:
    """Checks that an evaluation gives the metric of ``eval.best_metric``.

    Args:
        config: configuration of the run.
        several: whether an image may have several labels.

    Raises:
        ConfigError: if the metric is not one for such images; the message names those that are.
    """
    never = _ONE_LABEL if several else _SEVERAL_LABELS
    if config.eval.best_metric in never:
        allowed = ", ".join("loss" if key == "eval_loss" else key for key in _NAMES if key not in never)
        raise ConfigError(
            f"eval.best_metric={config.eval.best_metric}, but that figure is not computed for images with "
            f"{'several labels' if several else 'one label'} each. Use one of {allowed}, or None."
        )


def primary_metric(row: Mapping[str, Any], chosen: str | None = None) -> tuple[str, str]:
    """Returns the key and the name of the metric by which evaluations are compared.

    Args:
        row: a row of evaluation metrics.
        chosen: value of ``eval.best_metric``; None chooses mAP if images have several labels, otherwise top-1. The same
            is used if the row does not have the metric, as in the log of an earlier version.

    Returns:
        The key, which in rows the suffix of a model follows, and the name for people.
    """
    key = "eval_loss" if chosen == "loss" else chosen
    if key is None or not (key in row or f"{key}_ema" in row):
        key = "map" if "map" in row or "map_ema" in row else "top1"
    return key, _NAMES[key]


def primary_metric_key(row: Mapping[str, Any], chosen: str | None = None) -> str:
    """Returns the key of the primary metric of the averaged weights, or of the raw ones if there is no average."""
    key, _ = primary_metric(row, chosen)
    return f"{key}_ema" if f"{key}_ema" in row else key


def judged(row: Mapping[str, Any], chosen: str | None = None) -> dict[str, Any]:
    """Returns the arguments of ``Checkpoints.save_if_best`` for a row of evaluation metrics."""
    key = primary_metric_key(row, chosen)
    return {"value": row[key], "metric": key, "smaller_is_better": smaller_is_better(key)}


def best_of(rows: Sequence[Any], key: str) -> Any:
    """Returns the best of some rows that have a metric, and the first if several are equal."""
    return (min if smaller_is_better(key) else max)(rows, key=lambda row: row[key])


def smaller_is_better(key: str) -> bool:
    """Returns whether a metric, with or without the suffix of a model, is better the smaller it is."""
    return key.removesuffix("_ema") in _SMALLER


def ema_gap(row: Mapping[str, Any], chosen: str | None = None) -> dict[str, float]:
    """Returns the primary metric of the averaged weights minus that of the raw weights.

    Returns:
        A dict with the key ``ema_gap``; empty if there is no average.
    """
    key, _ = primary_metric(row, chosen)
    return {"ema_gap": row[f"{key}_ema"] - row[key]} if f"{key}_ema" in row else {}
