"""``report.html``: a self-contained page about a run, which needs no other files and no network."""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import PIL.Image
from absl import logging

from effnetv2_keras.basics.activity import doing
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.pages import render
from effnetv2_keras.reporting.primary_metric import primary_metric, primary_metric_key
from effnetv2_keras.reporting.progress import format_seconds, is_input_bound
from effnetv2_keras.reporting.report_plots import draw_plots
from effnetv2_keras.reporting.samples import Sample, Samples
from effnetv2_keras.reporting.stage_summary import StageSummary, summarize_stages
from effnetv2_keras.reporting.tables import STAGE_HEADINGS, stage_cells
from effnetv2_keras.runs.metrics_rows import HEAD, METRICS_FILE, describe_damage, read_rows
from effnetv2_keras.runs.provenance import read_provenance
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

REPORT_FILE = "report.html"
_THUMBNAIL = 144  # pixels
_ABSENT = "-"
_FIGURES = {
    "top1": "top-1", "top5": "top-5", "map": "mAP", "global_ap": "global AP", "precision_at_1": "precision@1",
    "precision_at_5": "precision@5", "recall_at_1": "recall@1", "recall_at_5": "recall@5", "eval_loss": "loss, nats",
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
    stages = config.plan(config.total_steps(num_train))
    summaries = summarize_stages(stages, rows)
    page = render(
        "report.html.jinja",
        title=f"{config.model.model_name} on {_data_name(config)}",
        folder=folder.path.resolve().name,
        summary=f"{num_train:,} training images, {num_eval:,} evaluation images, {len(folder.class_names()):,} classes",
        cards=_cards(rows, stages),
        results=_results(rows),
        plots=draw_plots(rows, stages),
        stage_headings=(*STAGE_HEADINGS, *_stage_figures(summaries[0])),
        stage_rows=[(*stage_cells(summary.stage), *_stage_figures(summary).values()) for summary in summaries],
        settings=_settings(config),
        provenance=read_provenance(folder),
        samples=[(_picture(sample), sample) for sample in samples.samples],
        samples_note=samples.note,
    )
    path = folder / REPORT_FILE
    write_atomically(path, page)
    return path


def _data_name(config: Config) -> str:
    """Returns a short name of the data set."""
    place = pathlib.Path(config.data.data_dir).name if config.data.data_dir else ""
    return config.data.tfds_name or place or config.data.source


def _cards(rows: Sequence[dict[str, Any]], stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Returns names and values of the key figures at the top of the page."""
    evaluations = _evaluations(rows)
    finished, total = (rows[-1]["step"] if rows else 0), stages[-1].end_step
    cards = []
    if evaluations:
        key, (_, name) = primary_metric_key(evaluations[0]), primary_metric(evaluations[0])
        kind = f"{name}, EMA" if key.endswith("_ema") else name
        cards = [(f"best {kind}", f"{_best(evaluations)[key]:.2%}"), (f"last {kind}", f"{evaluations[-1][key]:.2%}")]
    state = "finished" if finished == total else "unfinished"
    cards += [
        (f"steps, {state}", f"{finished:,}" if finished == total else f"{finished:,} of {total:,}"),
        ("training time, h:mm:ss", format_seconds(rows[-1]["seconds"] if rows else 0.0)),
    ]
    return cards


def _evaluations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of evaluations that have the metric by which they are compared."""
    evaluations = [row for row in rows if row["kind"] == "eval"]
    for key in (primary_metric_key(row) for row in reversed(evaluations)):
        if comparable := [row for row in evaluations if primary_metric_key(row) == key and key in row]:
            return comparable
    return []


def _best(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the evaluation whose weights are in ``best/``: the best one, and the first if several are equal."""
    key = primary_metric_key(evaluations[0])
    return max(evaluations, key=lambda row: row[key])


def _results(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, ...]]]:
    """Returns the best and the last evaluation, ``{heading: [(metric, raw, EMA), ...]}``; empty before the first."""
    evaluations = _evaluations(rows)
    if not evaluations:
        return {}
    return {
        f"{name} evaluation: step {row['step']:,}, epoch {row['epoch']:.1f}": [
            (label, *(f"{row[column]:.4f}" if column in row else _ABSENT for column in (key, f"{key}_ema")))
            for key, label in _FIGURES.items()
            if key in row
        ]
        for name, row in (("Best", _best(evaluations)), ("Last", evaluations[-1]))
    }


def _stage_figures(summary: StageSummary) -> dict[str, str]:
    """Returns steps, speed, time, memory and metrics of a stage, by column heading."""
    wait, evaluation = summary.input_wait, summary.evaluation
    score = evaluation.get(primary_metric_key(evaluation))
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


def _settings(config: Config) -> dict[str, list[tuple[str, str, bool]]]:
    """Returns name, value and whether it differs from the default for each setting, by section."""
    defaults = dict(flatten(Config().model_dump()))
    settings: dict[str, list[tuple[str, str, bool]]] = {}
    for key, value in flatten(config.model_dump()):
        section, name = key.split(".", 1)
        settings.setdefault(section, []).append((name, _written(value), value != defaults[key]))
    return settings


def _written(value: Any) -> str:
    """Returns a value in the syntax of ``--hparam_str``."""
    return "|".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _picture(sample: Sample) -> str:
    """Returns a small JPEG of an image as a data URL."""
    image = PIL.Image.fromarray(sample.image)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
