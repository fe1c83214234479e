"""What each stage of a run took and reached, from the rows of ``metrics.jsonl``."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from effnetv2_keras.progressive import Stage


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """One stage of a run so far; a figure that is not known is None.

    Attributes:
        stage: its place in the plan.
        began: training time of the run when the stage began, seconds.
        ended: training time at the stage's newest row, seconds.
        images_per_second: median over the rows, without the stage's first steps, which trace.
        compile_seconds: time spent on tracing.
        input_wait: mean share of the time spent waiting for images, in [0, 1].
        memory_mb: peak memory, MiB.
        loss: newest training loss.
        evaluation: newest row of an evaluation; empty if there is none.
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
    """Sums up every stage.

    Args:
        stages: the plan.
        rows: of ``metrics.jsonl``, oldest first.
    """
    summaries: list[StageSummary] = []
    for stage in stages:
        mine = [row for row in rows if stage.first_step < row["step"] <= stage.end_step]
        trained = [row for row in mine if row["kind"] == "train"]
        timed = [row for row in trained if row["images_per_second"] > 0]  # a row of traced steps has no speed
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
                loss=trained[-1]["loss"] if trained else None,
                evaluation=next((row for row in reversed(mine) if row["kind"] == "eval"), {}),
            )
        )
    return tuple(summaries)
