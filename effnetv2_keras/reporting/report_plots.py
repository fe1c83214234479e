"""The plots of ``report.html``, as SVG with the colors and fonts of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.pages.drawing import BLUE, GREEN, ORANGE, Plot, as_svg, page_style
from effnetv2_keras.reporting.primary_metric import primary_metric

_MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Curve:
    """One curve of a plot.

    Attributes:
        kind: kind of the rows with the values, ``train`` or ``eval``.
        key: key of the value in a row.
        label: text in the legend.
        color: CSS color that is visible on white and on black.
    """

    kind: str
    key: str
    label: str
    color: str


def draw_plots(rows: Sequence[dict[str, Any]], stages: Sequence[Stage], chosen: str | None = None) -> tuple[Plot, ...]:
    """Returns plots of the metrics of a run over its steps; metrics that the run does not have are left out.

    Args:
        rows: rows of ``metrics.jsonl``.
        stages: the stage plan, drawn behind the curves.
        chosen: value of ``eval.best_metric``.
    """
    key, name = primary_metric(next((row for row in rows if row["kind"] == "eval"), {}), chosen)
    plots = {
        "loss, nats": (
            Curve("train", "loss", "training", BLUE),
            Curve("eval", "eval_loss", "evaluation, raw", ORANGE),
            Curve("eval", "eval_loss_ema", "evaluation, EMA", GREEN),
        ),
        f"evaluation {name}": (Curve("eval", key, "raw", ORANGE), Curve("eval", f"{key}_ema", "EMA", GREEN))
        if key != "eval_loss"
        else (),
        "learning rate": (Curve("train", "lr", "", BLUE),),
        "gradient norm": (Curve("train", "gradient_norm", "", BLUE),),
        "images per second": (Curve("train", "images_per_second", "", BLUE),),
        f"EMA gap, {name}": (Curve("eval", "ema_gap", "", GREEN),),
    }
    return tuple(
        Plot(title, _draw(title, rows, stages, known))
        for title, curves in plots.items()
        if (known := [curve for curve in curves if any(_belongs(row, curve) for row in rows)])
    )


def _belongs(row: dict[str, Any], curve: Curve) -> bool:
    # A row that only consists of a traced step has no speed.
    return row["kind"] == curve.kind and curve.key in row and (curve.key != "images_per_second" or row[curve.key] > 0)


def _draw(title: str, rows: Sequence[dict[str, Any]], stages: Sequence[Stage], curves: Sequence[Curve]) -> str:
    with page_style(title):
        figure = matplotlib.figure.Figure(figsize=(4.4, 2.5), layout="constrained")
        axes = figure.subplots()
        for curve in curves:
            mine = [row for row in rows if _belongs(row, curve)]
            steps, values = _thin([row["step"] for row in mine], [row[curve.key] for row in mine])
            axes.plot(steps, values, "." if len(mine) < 2 else "-", color=curve.color, label=curve.label, linewidth=1.5)
        for stage in stages:
            axes.axvspan(stage.first_step, stage.end_step, color="#888", alpha=0.07 + 0.09 * (stage.index % 2), lw=0)
        axes.set_xlim(0, stages[-1].end_step)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=9)
        return as_svg(figure, title)


def _thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Averages neighboring points so that at most 400 are left, because a long run must not make a large page."""
    parts = min(len(steps), _MOST_POINTS)
    if not parts:
        return [], []
    means = [[float(part.mean()) for part in np.array_split(np.asarray(some), parts)] for some in (steps, values)]
    return means[0], means[1]
