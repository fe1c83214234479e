"""Summaries of the stages of a run: time, speed, memory, loss and evaluation, from the rows of ``metrics.jsonl``."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from effnetv2_keras.progressive import Stage


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """Summary of one stage so far. Values that are not known are None.

    Attributes:
        stage: the stage.
        began: training time of the run at the start of the stage, seconds.
        ended: training time of the run at the newest row of the stage, seconds.
        images_per_second: median over the rows, without rows that only contain a traced step.
        compile_seconds: time of tracing, seconds.
        input_wait: mean share of the time spent waiting for images, in [0, 1].
        memory_mb: peak memory, MiB.
        loss: newest training loss, nats.
        evaluation: newest ``eval`` row; empty if there is none.
    """

    stage: Stage
    began: float
    ended: float
    images_per_second: float | None
    compile_seconds: float
    input_wait: float | None
    memory_mb: float | None
    loss: float | None
    evaluation: dict[str, Any]


def summarize_stages(stages: Sequence[Stage], rows: Sequence[dict[str, Any]]) -> tuple[StageSummary, ...]:
    """Returns a summary of each stage.

    Args:
        stages: stages of the run.
        rows: rows of ``metrics.jsonl``, oldest first.
    """
    summaries: list[StageSummary] = []
    for stage in stages:
        mine = [row for row in rows if stage.first_step < row["step"] <= stage.end_step]
        trained = [row for row in mine if row["kind"] == "train"]
        # A row of only a traced step has no speed.
        timed = [row for row in trained if row.get("images_per_second", 0.0) > 0]
        waits = [row["input_wait"] for row in timed if "input_wait" in row]
        began = summaries[-1].ended if summaries else 0.0
        summaries.append(
            StageSummary(
                stage,
                began=began,
                ended=mine[-1]["seconds"] if mine else began,
                images_per_second=statistics.median_high(row["images_per_second"] for row in timed) if timed else None,
                compile_seconds=sum(row.get("compile_seconds", 0.0) for row in trained),
                input_wait=statistics.fmean(waits) if waits else None,
                memory_mb=max((row["memory_mb"] for row in trained if "memory_mb" in row), default=None),
                loss=trained[-1].get("loss") if trained else None,
                evaluation=next((row for row in reversed(mine) if row["kind"] == "eval"), {}),
            )
        )
    return tuple(summaries)
