"""Architecture search (section 3.3 and figure 3 of the paper): the winner of a search against its backbone.

A search draws networks around B0 at half width and depth, trains each for a few epochs of 48 px on four fifths of the
training images, and evaluates it on the last fifth. The network with the highest reward is then trained at 96 px on all
training images, as is the backbone: for as many epochs, and (``...-time``) for as much processor time. Validation and
test images have no part in the search.

    PYTHONPATH=. python benchmarks/claims/search.py --photos DIR --cores 0 1
    PYTHONPATH=. python benchmarks/claims/search.py --report

``progressive.py`` says what ``DIR`` holds. The runs of the backbone are its ``fixed``, if it has been run. The trials
and the winner are kept in ``results/search``; remove that folder for a new search.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import matplotlib.figure

from benchmarks.claims import figures, harness
from benchmarks.claims.harness import Setting
from effnetv2_keras.architecture.variants import get_spec

_WINNER, _TRIALS = "best.json", "trials.csv"


def search_here(job: dict[str, Any]) -> None:
    """Takes part in the search of a job, or resumes it, in this process."""
    os.sched_setaffinity(0, {job["core"]})
    import rich.console

    from benchmarks.claims.job import open_photos
    from effnetv2_keras.search.search import search

    _, facts = open_photos(job["photos"])
    config = harness.base_config(job["photos"], facts, job["base_epochs"]).override(
        {
            "data.train_split": "train[20%:]",
            "data.eval_split": "train[:20%]",
            "search.trials": job["trials"],
            "search.epochs": job["epochs"],
            "search.image_size": harness.FIRST,
        }
    )
    folder = pathlib.Path(job["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(f".core_{job['core']}.log").open("a") as log:
        search(config, str(folder), strategy="cpu", console=rich.console.Console(file=log, width=140))


def find_winner(options: argparse.Namespace, kept: pathlib.Path) -> None:
    """Searches, unless the results of a search are kept; then keeps the winner and the list of trials."""
    if options.report or (kept / _WINNER).exists():
        return
    if not options.photos:
        raise SystemExit("Give --photos DIR with the folders train, validation and test, or --report.")
    folder = options.work / f"search_of_{options.search_epochs:g}_epochs"
    job = {
        "setting": "the search",
        "seed": 0,
        "photos": options.photos,
        "base_epochs": options.epochs,
        "trials": options.trials,
        "epochs": options.search_epochs,
        "folder": str(folder),
    }
    harness.run_processes("benchmarks.claims.search", [job] * len(options.cores), options.cores)
    kept.mkdir(parents=True, exist_ok=True)
    trials = _read_trials(folder)
    with (kept / _TRIALS).open("w", newline="") as file:
        columns = [name for name in trials[0] if name != "process"]  # which names the machine
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(trials)
    shutil.copy(folder / _WINNER, kept / _WINNER)  # last, because it says that the search is finished


def _read_trials(folder: pathlib.Path) -> list[dict[str, str]]:
    """Returns the trials that have a result."""
    with (folder / _TRIALS).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["reward"]]


def _draw(
    trials: list[dict[str, str]], panel: figures.Panel, found: Mapping[str, figures.Runs], path: pathlib.Path
) -> None:
    """Writes a PNG with the accuracy of the trials by step time, and the curves of winner and backbone."""
    figure = matplotlib.figure.Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for trial in trials:
        is_winner = trial["network"] == panel["winner"]
        left.plot(
            float(trial["step time"]), 100 * float(trial["accuracy"]), "*" if is_winner else "o", zorder=2 + is_winner,
            color="tab:red" if is_winner else "tab:gray", markersize=10 if is_winner else 3,
        )  # fmt: skip
    left.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    left.set_title("trials; the star has the highest reward", fontsize=9)
    figures.label(left, "step time / step time of the backbone", "accuracy after the short training, %")
    right.set_title("full training at 96 px", fontsize=9)
    figures.draw_curves(right, found, panel)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = harness.make_parser("search", __doc__)
    parser.add_argument("--trials", type=int, default=50, help="networks to try")
    parser.add_argument("--search_epochs", type=float, default=10, help="epochs of a trial")
    options = parser.parse_args()
    kept = options.results / "search"
    find_winner(options, kept)
    if not (kept / _WINNER).exists():
        raise SystemExit(f"{kept} has no results of a search yet.")
    spec = get_spec(str(kept / _WINNER))
    winner = Setting(spec.name, harness.FIXED, spec)
    timed = dataclasses.replace(winner, name=f"{winner.name}-time", like=winner.name)
    settings = (harness.FIXED_SIZE, winner, timed)
    harness.run(options, settings)
    trials = _read_trials(kept)
    panel = dict(zip(("backbone", "winner", "winner, in equal time"), (setting.name for setting in settings)))
    figures.report(
        options,
        {"winner and backbone": panel},
        draw=lambda found, path: _draw(trials, panel, found, path),
    )
    own = next(row for row in trials if row["network"] == winner.name)
    print(f"{len(trials)} trials. {', '.join(f'{name} {own[name]}' for name in ('reward', 'accuracy', 'step time'))}.")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        harness.work(search_here, sys.argv[1])
    else:
        main()
