"""Progress output of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import rich.console
import rich.progress
import rich.table
import rich.text
from absl import logging

from effnetv2_keras.basics.activity import current, going_on
from effnetv2_keras.progressive import Stage
from effnetv2_keras.reporting.console import show

Item = TypeVar("Item")

_MOMENT = 2.0
"""Seconds after which the bar shows what is going on."""


def format_seconds(seconds: float) -> str:
    """Returns a duration as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def is_input_bound(row: Mapping[str, Any]) -> bool:
    """Returns whether, according to a row of metrics, devices waited for images for more than a fifth of the time."""
    return row.get("input_wait", 0.0) > 0.2


def counted(items: Iterable[Item], total: int, what: str, *, every: float = 10.0) -> Iterator[Item]:
    """Yields items and shows on standard error how many there were, how many a second, and the time left.

    On a terminal it is a bar, and elsewhere a log line from time to time.

    Args:
        items: the items.
        total: number of items, for the time left.
        what: what happens to them, such as ``"predicting"``.
        every: seconds between two log lines.
    """
    console = rich.console.Console(stderr=True)
    text = functools.partial(rich.progress.TextColumn, markup=False)
    columns = (text("{task.description}"), rich.progress.BarColumn(bar_width=20), rich.progress.MofNCompleteColumn())
    bar = rich.progress.Progress(
        *columns, text("{task.fields[note]}"), console=console, transient=True, disable=not console.is_terminal
    )
    first = told = time.monotonic()
    with bar:
        task = bar.add_task(what, total=total, note="")
        for number, item in enumerate(items, 1):
            now = time.monotonic()
            if number == 1:
                first = now  # the first item waits for what happens once
            elif now - first > 0.5:
                rate = (number - 1) / (now - first)
                note = f"{rate:.3g} images/s, {format_seconds((total - number) / rate)} left"
                bar.update(task, completed=number, note=note)
                if bar.disable and now - told >= every and number < total:
                    logging.info("%s: %s of %s, %s", what, f"{number:,}", f"{total:,}", note)
                    told = now
            yield item


class _Note(rich.progress.ProgressColumn):
    """The note of the bar, or what is going on if that takes longer than a moment."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(current(after=_MOMENT, deepest=1) or task.fields["note"])


class Progress:
    """A progress bar with stage, images/s, loss, learning rate and time left.

    Args:
        stages: the stage plan.
        console: console to print to.
    """

    def __init__(self, stages: Sequence[Stage], console: rich.console.Console) -> None:
        self._stages, self._console = stages, console
        self._live = console.is_terminal
        columns = functools.partial(rich.progress.TextColumn, markup=False)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            columns("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.MofNCompleteColumn(),
            _Note(),
            console=console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("starting", total=stages[-1].end_step, note="")

    @contextlib.contextmanager
    def shown(self) -> Iterator[Progress]:
        """Shows the bar inside a ``with`` block."""
        with self._bar:
            yield self

    def advance(self, stage: Stage, finished: int) -> None:
        """Moves the bar to ``finished`` steps and shows the stage."""
        self._bar.update(self._task, completed=finished, description=self._name(stage))
        going_on(f"{self._name(stage)} · step {finished}/{self._stages[-1].end_step}")

    def _name(self, stage: Stage) -> str:
        alone = " · classifier alone" if stage.trains == "classifier" else ""
        return f"stage {stage.index + 1}/{len(self._stages)} · {stage.image_size} px{alone}"

    def train_row(self, stage: Stage, row: dict[str, Any], seconds_left: float | None) -> None:
        """Shows the newest training metrics; without a terminal, prints them as a line.

        Args:
            stage: the stage.
            row: a ``train`` row of ``metrics.jsonl``.
            seconds_left: estimated time left, seconds; None if it is not known.
        """
        note = f"loss {row['loss']:.3f} · lr {row['lr']:.4g}"
        if row["images_per_second"]:  # unknown after the first step of a stage, which traces
            note = f"{row['images_per_second']:.0f} images/s · {note}"
        if seconds_left is not None:
            note += f" · {format_seconds(seconds_left)} left"
        if row.get("skipped_steps"):
            note += f" · {row['skipped_steps']} steps skipped, whose gradient overflows float16"
        if is_input_bound(row):
            note += f" · input-bound ({row['input_wait'] * 100:.0f} % of the time waiting for images)"
        self._bar.update(self._task, note=note)
        if not self._live:
            self.say(f"{self._name(stage)} · step {row['step']}/{self._stages[-1].end_step} · {note}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        show(self._console, text)

    def print_table(self, table: rich.table.Table) -> None:
        """Prints a table above the bar."""
        show(self._console, table)


class Stopwatch:
    """Measures the training time without evaluations and checkpoints, on the clock and of the processor.

    Args:
        seconds: training time of the run before it was resumed, seconds; 0 for a new run.
        processor_seconds: processor time of that training, over all threads of the process, seconds.
    """

    def __init__(self, seconds: float, processor_seconds: float = 0.0) -> None:
        self._started = time.perf_counter() - seconds
        self._processor_started = time.process_time() - processor_seconds

    @property
    def seconds(self) -> float:
        """Training time so far, seconds."""
        return time.perf_counter() - self._started

    @property
    def processor_seconds(self) -> float:
        """Processor time of the training so far, seconds."""
        return time.process_time() - self._processor_started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops both clocks inside a ``with`` block."""
        start, processor_start = time.perf_counter(), time.process_time()
        yield
        self._started += time.perf_counter() - start
        self._processor_started += time.process_time() - processor_start
