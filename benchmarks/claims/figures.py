"""Tables and plots of the claims, from their rows."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import scipy.stats

from benchmarks.claims import harness, rows

Runs = Mapping[int, rows.Row]
"""The rows of a setting, by seed."""
Panel = Mapping[str, str]
"""The settings in a panel of a plot: their names in the results, by those in the legend. The first is the reference."""

_COLORS = ("black", "tab:blue", "tab:red", "tab:green", "tab:purple", "tab:orange", "tab:brown")
_SIZES = range(harness.FIRST, harness.LAST + 1, 16)
_HEADINGS = (
    "setting", "runs", "parameters, M", "epochs", "minutes", "time ratio", "top-1, %", "difference", "p",
    "EMA top-1, %", "difference", "p",
)  # fmt: skip


def report(
    options: argparse.Namespace,
    panels: Mapping[str, Panel],
    more_tables: Mapping[str, Sequence[str]] | None = None,
    *,
    draw: Callable[[Mapping[str, Runs], Any], None] | None = None,
) -> None:
    """Prints the tables and writes the plot of a claim.

    Args:
        options: flags, see ``harness.make_parser``.
        panels: the panels of the plot, by their titles. Each panel has a table, which compares the other settings
            with the first.
        more_tables: names of the settings in further tables.
        draw: draws the runs to a path; None draws the accuracy over time.
    """
    tables = {**{title: list(panel.values()) for title, panel in panels.items()}, **(more_tables or {})}
    every = list(dict.fromkeys(name for names in tables.values() for name in names))
    found = rows.by_setting(rows.read(options.results), every, options.epochs)
    if not found:
        print(f"{options.results} has no runs of {options.epochs:g} epochs yet", file=sys.stderr)
        return
    for title, names in tables.items():
        if own := {name: found[name] for name in names if name in found}:
            print(f"{title}:\n\n{table(own, names[0])}\n")
    print(origin(found))
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    if draw:
        draw(found, options.plot)
    else:
        plot(found, panels, options.plot)


def table(found: Mapping[str, Runs], reference: str) -> str:
    """Returns a table in Markdown: means and deviations over the seeds of the last evaluations of the runs.

    Differences and time ratios are of runs with the same seed; p is that of the paired t-test.

    Args:
        found: the runs of each setting.
        reference: name of the setting with which the others are compared.
    """
    lines = [_HEADINGS, ("---",) * len(_HEADINGS)]
    for name, runs in found.items():
        pairs = [(run, found[reference][seed]) for seed, run in runs.items() if seed in found.get(reference, {})]
        is_compared = name != reference and bool(pairs)
        ratios = [minutes(own) / minutes(other) for own, other in pairs]
        cells = [
            name,
            str(len(runs)),
            spread([run["parameters"] / 1e6 for run in runs.values()], 2),
            spread([run["epochs"] for run in runs.values()], 1),
            spread([minutes(run) for run in runs.values()], 1),
            spread(ratios, 2) if is_compared else "",
        ]
        for metric in ("top1", "top1_ema"):
            cells.append(spread([percent(run, metric) for run in runs.values()], 1))
            cells += difference(pairs, metric) if is_compared else ["", ""]
        lines.append(tuple(cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def minutes(run: rows.Row) -> float:
    """Returns the processor time of a run, minutes."""
    return float(run["curve"]["seconds"][-1]) / 60


def percent(run: rows.Row, metric: str) -> float:
    """Returns the last accuracy of a run, percent."""
    return 100 * float(run["curve"][metric][-1])


def spread(values: Sequence[float], digits: int) -> str:
    """Returns mean and sample standard deviation as text; without a deviation if all values are equal."""
    text = f"{statistics.fmean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(set(values)) > 1 else text


def difference(pairs: Sequence[tuple[rows.Row, rows.Row]], metric: str) -> list[str]:
    """Returns the mean difference of an accuracy in percentage points, and the p-value of the paired t-test."""
    own, others = ([percent(run, metric) for run in side] for side in zip(*pairs))
    differences = [one - other for one, other in zip(own, others)]
    known = len(set(differences)) > 1
    p = f"{scipy.stats.ttest_rel(own, others).pvalue:.3f}" if known else ""
    mean = statistics.fmean(differences)
    return [f"{mean:+.1f} ± {statistics.stdev(differences):.1f}" if known else f"{mean:+.1f}", p]


def origin(found: Mapping[str, Runs]) -> str:
    """Returns on what and when the runs were made, and the speed of the usual sizes."""
    runs = [run for group in found.values() for run in group.values()]
    speeds: dict[int, list[float]] = {}
    for run in runs:
        for stage in run["stages"]:
            if run["network"] == harness.NETWORK and stage["size"] in _SIZES and stage["images_per_second"]:
                speeds.setdefault(stage["size"], []).append(stage["images_per_second"])
    facts = {
        name: ", ".join(sorted({str(run[name]) for run in runs}))
        for name in ("hardware", "tensorflow", "commit", "images")
    }
    dates = sorted(run["date"] for run in runs)
    return (
        f"One core of {facts['hardware']}, TensorFlow {facts['tensorflow']}, commit {facts['commit']}, {dates[0]} to "
        f"{dates[-1]}; {facts['images']} held-out images.\nImages per second of processor time: "
        + ", ".join(f"{statistics.median(each):.0f} at {size} px" for size, each in sorted(speeds.items()))
        + "."
    )


def plot(found: Mapping[str, Runs], panels: Mapping[str, Panel], path: Any) -> None:
    """Writes a PNG with the accuracy over processor time: mean and, as a band, standard deviation over the seeds.

    Args:
        found: the runs of each setting.
        panels: the panels, by their titles.
        path: path of the PNG.
    """
    figure = matplotlib.figure.Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()):
        draw_curves(axes, found, panel)
        axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)


def draw_curves(axes: Any, found: Mapping[str, Runs], panel: Panel) -> None:
    """Draws the accuracy over processor time into a panel; a setting without runs only keeps its color."""
    for (name, setting), color in zip(panel.items(), _COLORS):
        if runs := found.get(setting):
            _draw_curve(axes, f"{name} ({len(runs)} seeds)", list(runs.values()), color)
    label(axes, "processor time, minutes", "top-1 of the averaged weights, %")
    axes.set_xlim(left=0)
    if found.keys() & {*panel.values()}:
        axes.legend(fontsize=7, loc="lower right")


def label(axes: Any, horizontal: str, vertical: str) -> None:
    """Labels a panel."""
    axes.set_xlabel(horizontal, fontsize=8)
    axes.set_ylabel(vertical, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _draw_curve(axes: Any, name: str, runs: Sequence[rows.Row], color: str) -> None:
    times = [np.asarray(run["curve"]["seconds"]) / 60 for run in runs]
    grid = np.linspace(max(time[0] for time in times), min(time[-1] for time in times), 200)
    values = 100 * np.stack([np.interp(grid, time, run["curve"]["top1_ema"]) for time, run in zip(times, runs)])
    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1) if len(runs) > 1 else 0
    axes.plot(grid, mean, color=color, label=name, linewidth=1.3)
    axes.fill_between(grid, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
