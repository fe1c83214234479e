"""Tables and lines that summarize a run on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich.table

from effnetv2_keras.progressive import QUANTITIES, Stage
from effnetv2_keras.reporting.primary_metric import primary_metric
from effnetv2_keras.reporting.progress import format_seconds
from effnetv2_keras.reporting.stage_summary import summarize_stages


def describe_evaluation(
    row: dict[str, Any], num_examples: int, *, is_best: bool = False, chosen: str | None = None
) -> str:
    """Returns one line of text about an evaluation.

    Args:
        row: an ``eval`` row of ``metrics.jsonl``.
        num_examples: number of images in the split.
        is_best: whether no earlier evaluation of the run is better.
        chosen: value of ``eval.best_metric``.
    """
    ema = f", EMA {_figures(row, '_ema', chosen)}" if "top1_ema" in row else ""
    where = f"epoch {row['epoch']:.1f}, step {row['step']}: " if "epoch" in row else ""
    return (
        f"{where}evaluated {row['num_images']} of {num_examples} images: {_figures(row, '', chosen)}{ema}"
        f"{' (best so far)' if is_best else ''}"
    )


def _figures(row: dict[str, Any], suffix: str, chosen: str | None) -> str:
    """Returns the metrics of the model with a suffix, and the one by which the best checkpoint is chosen."""
    key, name = primary_metric(row, chosen)
    special = "" if key in ("top1", "top5", "map") else f" {name} {row[f'{key}{suffix}']:.4f}"
    if f"map{suffix}" not in row:
        return f"top-1 {row[f'top1{suffix}']:.4f} top-5 {row[f'top5{suffix}']:.4f}{special}"
    error = f" (off by at most {row[f'map_error{suffix}']:.1g})" if f"map_error{suffix}" in row else ""
    named = {
        "global AP": "global_ap", "precision@1": "precision_at_1", "precision@5": "precision_at_5",
        "recall@1": "recall_at_1", "recall@5": "recall_at_5",
    }  # fmt: skip
    others = (f"{name} {row[f'{key}{suffix}']:.4f}" for name, key in named.items())
    return " ".join((f"mAP {row[f'map{suffix}']:.4f}{error}{special}", *others))


def spreadsheet_cell(value: Any) -> Any:
    """Returns a value for a CSV file; text that a spreadsheet would compute as a formula gets an apostrophe before it.

    Such text begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return (OWASP, "CSV Injection").
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


STAGE_HEADINGS = ("stage", *(quantity.heading for quantity in QUANTITIES.values()))
"""Column headings of ``stage_cells``."""


def stage_cells(stage: Stage) -> tuple[str, ...]:
    """Returns the table cells of a stage's settings, in the order of ``STAGE_HEADINGS``."""
    values = (f"{getattr(stage, name):.{quantity.digits}g}" for name, quantity in QUANTITIES.items())
    return (f"{stage.index + 1}", *values)


def stage_report(stages: Sequence[Stage], rows: Sequence[dict[str, Any]]) -> rich.table.Table:
    """Returns a table with one line per stage: settings, steps, speed, time, loss and evaluation.

    Args:
        stages: stages of the run.
        rows: rows of ``metrics.jsonl``, oldest first.
    """
    table = rich.table.Table(title="Stages of this run")
    key, name = primary_metric(next((row for row in rows if row["kind"] == "eval"), {}))
    for heading in (*STAGE_HEADINGS, "steps", "images/s", "time", "loss", name, f"EMA {name}"):
        table.add_column(heading.replace("RandAugment", "RandAug"), justify="right")  # for 80 columns
    for summary in summarize_stages(stages, rows):
        reached = summary.evaluation
        table.add_row(
            *stage_cells(summary.stage),
            f"{summary.stage.num_steps}",
            "-" if summary.images_per_second is None else f"{summary.images_per_second:.0f}",
            format_seconds(summary.ended - summary.began),
            "-" if summary.loss is None else f"{summary.loss:.3f}",
            *(f"{reached[column]:.4f}" if column in reached else "-" for column in (key, f"{key}_ema")),
        )
    return table
