"""Tables and plots of the ablations, which compare our results with the paper's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import rich.console
import rich.table

_OURS = (
    ("top-1, %", "top1", 2),
    ("raw top-1", "top1_raw", 2),
    ("time, s", "seconds", 0),
    ("tracing, s", "trace_seconds", 0),
    ("steps, s", "step_seconds", 1),
    ("time ratio", "time_ratio", 2),
    ("steps ratio", "step_ratio", 2),
    ("fastest-steps ratio", "fastest_ratio", 2),
    ("pixels ratio", "pixel_ratio", 2),
    ("parameters, M", "parameters", 2),
    ("FLOPs, G", "flops", 2),
)
"""Heading, key in a row, and digits of each column. Ratios are relative to the reference setting."""


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Prints a line for each setting: mean and standard deviation over the seeds, then the paper's figures.

    Args:
        rows: rows from ``harness.summarize``.
        title: title of the table.
    """
    table = rich.table.Table(title=f"{title} (runs per setting: {rows[-1]['runs']})")
    columns = [column for column in _OURS if column[1] in rows[0]]
    papers = list(dict.fromkeys(name for row in rows for name in row["paper"]))
    table.add_column("setting")
    for heading in (*(column[0] for column in columns), *(f"paper: {name}" for name in papers)):
        table.add_column(heading, justify="right")
    for row in rows:
        ours = (_cell(row[key], digits, several=row["runs"] > 1) for _, key, digits in columns)
        table.add_row(
            row["setting"], *ours, *(f"{row['paper'][name]:g}" if name in row["paper"] else "" for name in papers)
        )
    rich.console.Console(width=200).print(table)


def _cell(figure: Mapping[str, float], digits: int, *, several: bool) -> str:
    return f"{figure['mean']:.{digits}f}" + (f" ± {figure['std']:.{digits}f}" if several else "")


def plot(rows: Sequence[Mapping[str, Any]], title: str, path: str | os.PathLike[str]) -> None:
    """Writes a PNG with a line for each setting: our accuracy, the paper's, and times relative to the reference.

    Args:
        rows: rows from ``harness.summarize``.
        title: title of the figure.
        path: path of the PNG.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    ours, paper, times = figure.subplots(1, 3, sharey=True)
    places = [-number for number in range(len(rows))]
    figure.suptitle(title, fontsize=9)
    ours.set_yticks(places, [row["setting"] for row in rows], fontsize=7)
    for axes, heading in ((ours, "ours: top-1, %"), (paper, "paper: top-1, %"), (times, "time / reference")):
        axes.set_xlabel(heading, fontsize=7)
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", alpha=0.3)
        axes.locator_params(axis="x", nbins=5)
    _errorbars(ours, rows, places, "top1", "o", "tab:blue")
    if "top1" not in rows[0]:
        ours.set_xticks([])
        ours.set_xlabel("ours: not trained", fontsize=7)
    points = [(row["paper"]["top-1"], place) for row, place in zip(rows, places) if "top-1" in row["paper"]]
    paper.plot(*zip(*points), "x", color="black") if points else paper.set_visible(False)
    _errorbars(times, rows, places, "step_ratio", "o", "tab:blue", label="steps, measured")
    _errorbars(times, rows, places, "fastest_ratio", "s", "tab:green", label="steps, at highest speed")
    _errorbars(times, rows, places, "pixel_ratio", "|", "tab:orange", label="pixels")
    points = [(row["paper"]["time ratio"], place) for row, place in zip(rows, places) if "time ratio" in row["paper"]]
    if points:
        times.plot(*zip(*points), "x", color="black", label="paper")
    times.set_xlim(left=0)
    times.legend(fontsize=6)
    figure.savefig(path, dpi=80)


def _errorbars(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[float],
    key: str,
    marker: str,
    color: str,
    **label: str,
) -> None:
    """Draws means with standard deviations, if all rows have ``key``."""
    if all(key in row for row in rows):
        means, deviations = ([row[key][part] for row in rows] for part in ("mean", "std"))
        axes.errorbar(means, places, xerr=deviations, fmt=marker, color=color, capsize=2, markersize=5, **label)
