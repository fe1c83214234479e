"""Result files of a search: ``search.html``, ``search.png``, ``trials.csv``, ``best.json`` and ``front/``."""

from __future__ import annotations

import collections
import contextlib
import csv
import io
import math
import pathlib
import shlex
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_keras.basics.program import program
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.pages import render
from effnetv2_keras.reporting.pages.drawing import BLUE, GREEN, GREY, ORANGE, Plot, as_svg, page_style
from effnetv2_keras.reporting.tables import spreadsheet_cell
from effnetv2_keras.runs.disk import write_atomically
from effnetv2_keras.search.display import HEADINGS, cells, ending
from effnetv2_keras.search.samplers import quiet
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.study import NETWORK, Study

BEST_FILE, FRONT_FOLDER = "best.json", "front"

_MOST_BARS = 12
_FEWEST = 8  # fewest trials for importances
_BEST_SHARE = 0.25
_OPERATORS = {"fused_mbconv": ("Fused-MBConv", ORANGE), "mbconv": ("MBConv", BLUE)}

Draw = Callable[[matplotlib.axes.Axes], None]


def write_results(folder: pathlib.Path, study: Study, space: SearchSpace, settings: SearchConfig) -> list[pathlib.Path]:
    """Writes the results so far; each file is replaced atomically.

    Args:
        folder: folder of the search.
        study: the trials.
        space: the search space.
        settings: settings of the search.

    Returns:
        The paths, most readable first: the page, its plots as PNG, the table, the best network by reward, and the
        folder of the Pareto front of accuracy, step time and parameters. Without a complete trial, only the table.
    """
    trials = study.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    written = [folder / "trials.csv"]
    write_atomically(written[0], _csv(trials))
    if not complete:
        return written
    drawings = _drawings(complete, space)
    (folder / FRONT_FOLDER).mkdir(exist_ok=True)
    front = front_of(complete, ("accuracy", "step_time", "parameters"))
    best = _best(complete)
    for trial in front:
        spec = space.spec(trial.params)
        write_atomically(folder / FRONT_FOLDER / f"{spec.name}.json", spec.to_json())
    for path in (folder / FRONT_FOLDER).glob("*.json"):
        if path.stem not in {trial.user_attrs[NETWORK] for trial in front}:
            path.unlink(missing_ok=True)
    write_atomically(folder / BEST_FILE, space.spec(best.params).to_json())
    write_atomically(folder / "search.html", _page(folder, trials, complete, front, drawings, space, settings))
    plots.try_to_draw(_write_png, folder / "search.png", drawings)
    return [folder / "search.html", folder / "search.png", *written, folder / BEST_FILE, folder / FRONT_FOLDER]


def front_of(trials: Sequence[FrozenTrial], figures: Sequence[str]) -> list[FrozenTrial]:
    """Returns the Pareto front of the trials, the most accurate first.

    A trial is on the front unless another is at least as good in all figures and better in one.

    Args:
        trials: trials with results.
        figures: names of user attributes. Higher is better for the first, lower is better for the others.
    """

    def values(trial: FrozenTrial) -> tuple[float, ...]:
        first, *rest = (trial.user_attrs[name] for name in figures)
        return (-first, *rest)

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other))

    rows = [(trial, values(trial)) for trial in trials]
    front = [trial for trial, own in rows if not any(beats(other, own) for _, other in rows)]
    return sorted(front, key=lambda trial: trial.user_attrs["accuracy"], reverse=True)


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Returns how well each decision separates good networks from others, by PED-ANOVA (arXiv 2304.10255).

    Returns:
        The importance of each decision, as a share of 1, the largest first; empty if there are fewer than 8 trials, or
        PED-ANOVA gives no result.
    """
    if len(trials) < _FEWEST:
        return {}
    with quiet(), contextlib.suppress(ValueError, RuntimeError, ZeroDivisionError):
        study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
        study.add_trials(
            optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, value=trial.user_attrs["reward"]
            )
            for trial in trials
        )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        if all(map(math.isfinite, found.values())) and sum(found.values()) > 0:
            return dict(found)
    return {}


def _best(trials: Sequence[FrozenTrial]) -> FrozenTrial:
    return max(trials, key=lambda trial: trial.user_attrs["reward"])


def _leaders(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the best quarter of the trials by reward."""
    ranked = sorted(trials, key=lambda trial: trial.user_attrs["reward"], reverse=True)
    return ranked[: max(1, math.ceil(_BEST_SHARE * len(ranked)))]


def _stages(space: SearchSpace) -> range:
    return range(1, len(space.backbone.blocks) + 1)


def _drawings(trials: list[FrozenTrial], space: SearchSpace) -> dict[str, Draw]:
    """Returns the function that draws each plot, by title."""
    drawings: dict[str, Draw] = {
        "accuracy against step time": lambda axes: _draw_front(axes, trials, "step_time", "step time / backbone", 1),
        "accuracy against parameters": lambda axes: _draw_front(axes, trials, "parameters", "parameters, M", 1e6),
        "operators of the best quarter": lambda axes: _draw_operators(axes, trials, space),
        "best reward so far": lambda axes: _draw_course(axes, trials),
    }
    if shares := importances(trials):
        drawings["importance of each choice"] = lambda axes: _draw_importances(axes, shares)
    return drawings


def _draw_front(
    axes: matplotlib.axes.Axes, trials: Sequence[FrozenTrial], figure: str, label: str, unit: float
) -> None:
    def points(some: Sequence[FrozenTrial]) -> tuple[list[float], list[float]]:
        return [one.user_attrs[figure] / unit for one in some], [one.user_attrs["accuracy"] for one in some]

    axes.plot(*points(trials), "o", color=GREY, markersize=4, label="trials")
    axes.plot(*points(front_of(trials, ("accuracy", figure))), "o-", color=BLUE, markersize=5, label="front")
    axes.plot(*points([_best(trials)]), "*", color=ORANGE, markersize=13, label="best reward")
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False, fontsize=9)


def _draw_operators(axes: matplotlib.axes.Axes, trials: Sequence[FrozenTrial], space: SearchSpace) -> None:
    leaders, stages = _leaders(trials), list(_stages(space))
    base = [0.0] * len(stages)
    for operator, (name, color) in _OPERATORS.items():
        shares = [sum(trial.params[f"stage{stage}.operator"] == operator for trial in leaders) for stage in stages]
        heights = [share / len(leaders) for share in shares]
        axes.bar(stages, heights, bottom=base, color=color, label=name, width=0.7)
        base = [low + height for low, height in zip(base, heights)]
    axes.set_xticks(stages)
    axes.set_xlabel("stage")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1.25)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center")


def _draw_course(axes: matplotlib.axes.Axes, trials: Sequence[FrozenTrial]) -> None:
    ended = sorted(trials, key=lambda trial: (trial.datetime_complete, trial.number))
    rewards = [trial.user_attrs["reward"] for trial in ended]
    numbers = range(1, len(rewards) + 1)
    axes.plot(numbers, rewards, "o", color=GREY, markersize=4, label="trial")
    axes.step(numbers, [max(rewards[:count]) for count in numbers], where="post", color=GREEN, label="best so far")
    axes.set_xlabel("finished trials")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(8, integer=True))
    axes.set_ylabel("reward")
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _draw_importances(axes: matplotlib.axes.Axes, shares: dict[str, float]) -> None:
    names = list(shares)[:_MOST_BARS][::-1]
    axes.barh(names, [shares[name] for name in names], color=BLUE)
    axes.set_xlabel("importance, share of 1")


def _choices_that_win(trials: Sequence[FrozenTrial], space: SearchSpace) -> list[list[str]]:
    """Returns a row per stage: the most frequent choices in the best quarter, with their shares there and overall."""
    leaders, rows = _leaders(trials), []
    for stage in _stages(space):
        row = [str(stage)]
        for what in ("operator", "layers", "kernel", "expansion"):
            name = f"stage{stage}.{what}"
            (choice, count), *_ = collections.Counter(trial.params[name] for trial in leaders).most_common(1)
            everywhere = sum(trial.params[name] == choice for trial in trials) / len(trials)
            row.append(f"{_written(choice)} ({count / len(leaders):.0%}; all {everywhere:.0%})")
        rows.append(row)
    return rows


def _written(choice: Any) -> str:
    return _OPERATORS[choice][0] if choice in _OPERATORS else str(choice)


def _page(
    folder: pathlib.Path,
    trials: list[FrozenTrial],
    complete: list[FrozenTrial],
    front: list[FrozenTrial],
    drawings: dict[str, Draw],
    space: SearchSpace,
    settings: SearchConfig,
) -> str:
    best = _best(complete)
    on_front = {trial.number for trial in front}
    ranked = sorted(complete, key=lambda trial: trial.user_attrs["reward"], reverse=True)
    others = [trial for trial in trials if trial.state in (TrialState.PRUNED, TrialState.FAIL)]
    return render(
        "search.html.jinja",
        title=f"Search around {space.backbone.name}",
        folder=folder.resolve().name,
        command=shlex.join([*program(), "--mode=train", f"--model_name={folder / BEST_FILE}"]),
        summary=f"{space.size:.3g} networks; {settings.sampler} sampler; reward A · S^{settings.time_exponent:g} · "
        f"P^{settings.parameters_exponent:g}",
        cards=[
            ("trials with a result", f"{len(complete)} of {len(trials)}"),
            ("best reward", f"{best.user_attrs['reward']:.4f}"),
            ("accuracy of the best", f"{best.user_attrs['accuracy']:.2%}"),
            ("its step time / backbone", f"{best.user_attrs['step_time']:.2f}"),
            ("parameters of the best", f"{best.user_attrs['parameters'] / 1e6:.2f} M"),
        ],
        plots=[Plot(title, _svg(title, draw)) for title, draw in drawings.items()],
        best=space.spec(best.params),
        winners=_choices_that_win(complete, space),
        headings=HEADINGS,
        rows=[(cells(trial), trial.number in on_front) for trial in ranked],
        others=[(cells(trial), ending(trial)) for trial in others],
    )


def _svg(title: str, draw: Draw) -> str:
    with page_style(title):
        figure = matplotlib.figure.Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        return as_svg(figure, title)


def _write_png(path: pathlib.Path, drawings: dict[str, Draw]) -> None:
    columns = 2
    lines = math.ceil(len(drawings) / columns)
    figure = matplotlib.figure.Figure(figsize=(11, 4 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes in grid:
        axes.set_visible(False)
    for axes, (title, draw) in zip(figure.axes, drawings.items()):
        axes.set_visible(True)
        draw(axes)
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    # The name is unique, because several processes may write at once.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.replace(path)


def _csv(trials: Sequence[FrozenTrial]) -> str:
    """Returns ``trials.csv``: one line per finished trial, with all decisions."""
    decisions = sorted({name for trial in trials for name in trial.params})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*HEADINGS, "seconds", "ending", *decisions])
    for trial in trials:
        if trial.state.is_finished():
            choices = [trial.params.get(name, "") for name in decisions]
            writer.writerow(
                [*cells(trial), trial.user_attrs.get("seconds", ""), spreadsheet_cell(ending(trial)), *choices]
            )
    return file.getvalue()
