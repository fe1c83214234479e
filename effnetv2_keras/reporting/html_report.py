"""``report.html``: a self-contained page about a run, which needs no other files and no network."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.effective_settings import effective_settings
from effnetv2_keras.reporting.evaluation_sections import cards_of, picture_url, results_of, section_of
from effnetv2_keras.reporting.evaluations import read_evaluations
from effnetv2_keras.reporting.pages import render
from effnetv2_keras.reporting.primary_metric import best_of, primary_metric, primary_metric_key
from effnetv2_keras.reporting.progress import format_seconds, is_input_bound
from effnetv2_keras.reporting.report_plots import draw_plots
from effnetv2_keras.reporting.samples import Samples
from effnetv2_keras.reporting.stage_summary import StageSummary, summarize_stages
from effnetv2_keras.reporting.tables import STAGE_HEADINGS, stage_cells
from effnetv2_keras.runs import commands
from effnetv2_keras.runs.metrics_rows import HEAD, METRICS_FILE, describe_damage, read_rows
from effnetv2_keras.runs.provenance import read_provenance
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

REPORT_FILE = "report.html"
_ABSENT = "-"
_FIGURES = {
    "top1": "top-1", "top5": "top-5", "map": "mAP", "global_ap": "global AP", "precision_at_1": "precision@1",
    "precision_at_5": "precision@5", "recall_at_1": "recall@1", "recall_at_5": "recall@5",
    "balanced_accuracy": "balanced accuracy", "macro_precision": "macro precision", "macro_recall": "macro recall",
    "macro_f1": "macro F1", "ece": "ECE", "eval_loss": "loss, nats",
}  # fmt: skip


@doing("drawing the report")
def write_report(folder: RunFolder, samples: Samples) -> pathlib.Path:
    """Writes ``report.html`` into the folder of a finished or unfinished run.

    Args:
        folder: folder of the run.
        samples: evaluation images to show.

    Returns:
        The path of the page.

    Raises:
        RunFolderError: if the folder contains no run.
    """
    config, (rows, damaged) = folder.config(), read_rows(folder / METRICS_FILE)
    rows = [row for row in rows if row.keys() >= HEAD]
    if damaged:
        logging.warning("%s", describe_damage(folder / METRICS_FILE, damaged))
    num_train, num_eval = folder.num_images()
    chosen, names = config.eval.best_metric, folder.class_names()
    evaluations = [one for one in read_evaluations(folder) if len(one.classes["num_positive"]) == len(names)]
    stages = config.plan(config.total_steps(num_train))
    summaries = summarize_stages(stages, rows)
    page = render(
        "report.html.jinja",
        title=f"{_network_name(config)} on {_data_name(config)}",
        folder=folder.path.resolve().name,
        summary=f"{num_train:,} training images, {num_eval:,} evaluation images, {len(names):,} classes",
        cards=[*cards_of(evaluations), *_cards(rows, stages, chosen)],
        evaluated=results_of(evaluations) if evaluations else None,
        sections=[section_of(one, names, folder) for one in reversed(evaluations)],
        command=commands.of_mode("eval", folder.path),
        results=_results(rows, chosen),
        plots=draw_plots(rows, stages, chosen),
        stage_headings=(*STAGE_HEADINGS, *_stage_figures(summaries[0], chosen)),
        stage_rows=[(*stage_cells(summary.stage), *_stage_figures(summary, chosen).values()) for summary in summaries],
        settings=effective_settings(config),
        provenance=read_provenance(folder),
        samples=[
            (picture_url(one.image), None if one.overlay is None else picture_url(one.overlay), one)
            for one in samples.samples
        ],
        samples_note=samples.note,
    )
    path = folder / REPORT_FILE
    write_atomically(path, page)
    return path


def _network_name(config: Config) -> str:
    """Returns the name of the network, and for a file only that of the file."""
    name = config.model.model_name
    return pathlib.Path(name).stem if name.endswith(".json") else name


def _data_name(config: Config) -> str:
    """Returns a short name of the data set."""
    place = pathlib.Path(config.data.data_dir).name if config.data.data_dir else ""
    return config.data.tfds_name or place or config.data.source


def _cards(rows: Sequence[dict[str, Any]], stages: Sequence[Stage], chosen: str | None) -> list[tuple[str, str]]:
    """Returns names and values of the key figures at the top of the page."""
    evaluations = _evaluations(rows, chosen)
    finished, total = (rows[-1]["step"] if rows else 0), stages[-1].end_step
    cards = []
    if evaluations:
        key, (_, name) = primary_metric_key(evaluations[0], chosen), primary_metric(evaluations[0], chosen)
        kind = f"{name}, EMA" if key.endswith("_ema") else name
        best, last = (_figure(key, row[key]) for row in (best_of(evaluations, key), evaluations[-1]))
        cards = [(f"best {kind}", best), (f"last {kind}", last)]
    state = "finished" if finished == total else "unfinished"
    cards += [
        (f"steps, {state}", f"{finished:,}" if finished == total else f"{finished:,} of {total:,}"),
        ("training time, h:mm:ss", format_seconds(rows[-1]["seconds"] if rows else 0.0)),
    ]
    return cards


def _figure(key: str, value: float) -> str:
    """Returns a loss with four digits, and anything else in percent."""
    return f"{value:.4f}" if key.startswith("eval_loss") else f"{value:.2%}"


def _evaluations(rows: Sequence[dict[str, Any]], chosen: str | None) -> list[dict[str, Any]]:
    """Returns the rows of evaluations that have the metric by which they are compared."""
    evaluations = [row for row in rows if row["kind"] == "eval"]
    for key in (primary_metric_key(row, chosen) for row in reversed(evaluations)):
        if comparable := [row for row in evaluations if primary_metric_key(row, chosen) == key and key in row]:
            return comparable
    return []


def _results(rows: Sequence[dict[str, Any]], chosen: str | None) -> dict[str, list[tuple[str, ...]]]:
    """Returns the best and the last evaluation, ``{heading: [(metric, raw, EMA), ...]}``; empty before the first."""
    evaluations = _evaluations(rows, chosen)
    if not evaluations:
        return {}
    best = best_of(evaluations, primary_metric_key(evaluations[0], chosen))  # whose weights are in best/
    return {
        f"{name} evaluation: step {row['step']:,}, epoch {row['epoch']:.1f}": [
            (label, *(f"{row[column]:.4f}" if column in row else _ABSENT for column in (key, f"{key}_ema")))
            for key, label in _FIGURES.items()
            if key in row
        ]
        for name, row in (("Best", best), ("Last", evaluations[-1]))
    }


def _stage_figures(summary: StageSummary, chosen: str | None) -> dict[str, str]:
    """Returns steps, speed, time, memory and metrics of a stage, by column heading."""
    wait, evaluation = summary.input_wait, summary.evaluation
    score = evaluation.get(primary_metric_key(evaluation, chosen))
    bound = "input-bound, " if wait is not None and is_input_bound({"input_wait": wait}) else ""
    return {
        "steps": f"{summary.stage.num_steps:,}",
        "images/s": _ABSENT if summary.images_per_second is None else f"{summary.images_per_second:,.0f}",
        "compile, s": f"{summary.compile_seconds:.1f}" if summary.compile_seconds else _ABSENT,
        "waits for input": _ABSENT if wait is None else f"{bound}{wait:.0%}",
        "peak memory, MiB": _ABSENT if summary.memory_mb is None else f"{summary.memory_mb:,.0f}",
        "last loss": _ABSENT if summary.loss is None else f"{summary.loss:.3f}",
        "last score": _ABSENT if score is None else f"{score:.4f}",
    }
