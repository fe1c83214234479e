"""Output of a search on the screen: a table of finished trials and a bar with the time left (no TensorFlow)."""

from __future__ import annotations

import contextlib
import pathlib
import textwrap
import time
from collections.abc import Iterator

import rich.console
import rich.progress
from optuna.trial import FrozenTrial, TrialState

from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.progress import format_seconds
from effnetv2_keras.search.ownership import owner_of
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.study import NETWORK, Proposal, Study

HEADINGS = ("trial", "network", "accuracy", "step time", "params, M", "MACs, G", "reward", "process")
_COLUMNS = (
    ("trial", 5), ("network", 28), ("accuracy", 8), ("step s", 6), ("params M", 8), ("MACs G", 7), ("reward", 6),
)  # fmt: skip
_ENDINGS = {TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


def cells(trial: FrozenTrial) -> list[str]:
    """Returns the cells of a finished trial, in the order of ``HEADINGS``; unknown values are dashes."""

    def figure(name: str, form: str, unit: float = 1) -> str:
        value = trial.user_attrs.get(name)
        return "-" if value is None else format(value / unit, form)

    return [
        str(trial.number),
        trial.user_attrs[NETWORK],
        figure("accuracy", ".4f"),
        figure("step_time", ".3f"),
        figure("parameters", ".3f", 1e6),
        figure("macs", ".4f", 1e9),
        figure("reward", ".4f"),
        owner_of(trial.user_attrs),
    ]


def ending(trial: FrozenTrial) -> str:
    """Returns why a trial has no result; empty if it has one."""
    return f"{_ENDINGS[trial.state]}: {trial.user_attrs.get('reason', '?')}" if trial.state in _ENDINGS else ""


class Display:
    """The table and the progress bar of a search.

    Args:
        study: trials of all processes.
        settings: settings of the search.
        console: console to print to.
    """

    def __init__(self, study: Study, settings: SearchConfig, console: rich.console.Console) -> None:
        self._study, self._settings, self._console = study, settings, console
        self._shown: set[int] = set()
        self._started, self._ended_here, self._note = time.monotonic(), 0, ""
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("trials"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("trials", total=settings.trials, note="")

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the bar inside a ``with`` block."""
        with self._bar:
            yield

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        show(self._console, text)

    def introduce(self, space: SearchSpace) -> None:
        """Prints a description of the search, and the table of the trials so far."""
        self.say(
            f"Search space: {space.size:.3g} networks around {space.backbone.name}. {self._settings.trials} trials of "
            f"{self._settings.epochs:g} epochs; sampler: {self._settings.sampler}; this process: {self._study.me}."
        )
        self.say(_line([name for name, _ in _COLUMNS]))
        self.update()

    def update(self) -> None:
        """Prints the trials of all processes that have finished since the last call."""
        for trial in self._study.trials():
            if trial.state.is_finished() and trial.number not in self._shown:
                self._shown.add(trial.number)
                self._ended_here += owner_of(trial.user_attrs) == self._study.me
                self.say(_line(cells(trial)))
                for line in textwrap.wrap(self._remark(trial), 72):
                    self.say(f"       {line}")
        self._bar.update(self._task, completed=len(self._shown))

    def _remark(self, trial: FrozenTrial) -> str:
        """Returns why a trial has no result, and which other process ran it."""
        owner = owner_of(trial.user_attrs)
        return "; ".join(filter(None, (ending(trial), "" if owner == self._study.me else f"process {owner}")))

    def begin(self, proposal: Proposal) -> None:
        """Shows the number of the running trial on the bar."""
        self._note = f"trial {proposal.trial.number}: measuring the step time"
        self._draw()

    def epoch(self, proposal: Proposal, epoch: int, accuracy: float) -> None:
        """Shows the epoch and the accuracy of the running trial on the bar."""
        self._note = f"trial {proposal.trial.number}: epoch {epoch}/{self._settings.epochs:g}, accuracy {accuracy:.4f}"
        self._draw()

    def _draw(self) -> None:
        left = ""
        if self._ended_here:
            each = (time.monotonic() - self._started) / self._ended_here
            processes = max(1, sum(trial.state == TrialState.RUNNING for trial in self._study.trials()))
            left = f" · {format_seconds(each * (self._settings.trials - len(self._shown)) / processes)} left"
        self._bar.update(self._task, note=f"{self._note}{left}")

    def conclude(self, files: list[pathlib.Path], *, stopped: bool) -> None:
        """Prints the number of trials with a result, the best network, and the paths of the written files.

        Args:
            files: the written files.
            stopped: whether the search was stopped on request.
        """
        trials = self._study.trials()
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        others = f", {running} in other processes" if running else ""
        self.say(f"{len(complete)} of {len(trials)} trials have a result{others}.")
        if not stopped and len(trials) < self._settings.trials:
            self.say(
                "The search ended early because the sampler found no new network within the limits: its last draws "
                f"were known or over a limit ({self._refusals()})."
            )
        if complete:
            best = max(complete, key=lambda trial: trial.user_attrs["reward"])
            self.say(f"Best by reward: trial {best.number}, {best.user_attrs[NETWORK]}.")
        for path in files:
            self.say(f"Wrote {path}")

    def _refusals(self) -> str:
        return f"{len(self._study.optuna_study.get_trials(deepcopy=False)) - len(self._study.trials())} in total"


def _line(texts: list[str]) -> str:
    """Returns the first texts in columns: 80 characters."""
    return "  ".join(
        text.ljust(width) if name == "network" else text.rjust(width) for text, (name, width) in zip(texts, _COLUMNS)
    )
