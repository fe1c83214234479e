"""Services that follow a run: Weights & Biases and MLflow, each by its own library, which is optional."""

from __future__ import annotations

import abc
import importlib
import json
import os
from collections.abc import Iterable
from typing import Any

from absl import logging

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.errors import UsageError
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

TRACKERS_FILE = "trackers.json"
"""In the run's folder: the id under which each service knows the run, so that a resumed run is the same there."""


class Tracker(abc.ABC):
    """A service that is told a run's figures.

    Attributes:
        run_id: under which the service knows the run.
    """

    run_id: str

    @abc.abstractmethod
    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        """Opens the run with this id, or a new one if it is None."""

    @abc.abstractmethod
    def log(self, row: dict[str, Any]) -> None:
        """Tells one row of ``metrics.jsonl``."""

    @abc.abstractmethod
    def finish(self, *, completed: bool) -> None:
        """Closes the run, which was trained to its end or not."""


class WandbTracker(Tracker):
    """Weights & Biases, of the project ``WANDB_PROJECT`` (effnetv2_keras by default); files go to the run's folder."""

    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        try:
            self._run = library.init(
                project=os.environ.get("WANDB_PROJECT", "effnetv2_keras"),
                name=folder.path.name,
                id=run_id,
                resume="allow",
                dir=str(folder.path),
                config=dict(flatten(config.model_dump(mode="json"))),
                settings=library.Settings(console="off"),  # the progress bar is no text to keep
            )
        except library.Error as error:
            raise UsageError(
                f"runtime.trackers=wandb: Weights & Biases cannot be used: {error} Log in with `wandb login`, set "
                "WANDB_MODE=offline, or leave the tracker out."
            ) from error
        self.run_id = self._run.id
        for kind in ("train", "eval"):
            self._run.define_metric(f"{kind}/*", step_metric="step")

    def log(self, row: dict[str, Any]) -> None:
        """Tells one row of ``metrics.jsonl``."""
        self._run.log({"step": row["step"], **_figures(row)})

    def finish(self, *, completed: bool) -> None:
        """Closes the run, which was trained to its end or not."""
        self._run.finish(exit_code=0 if completed else 1)


class MlflowTracker(Tracker):
    """MLflow, at ``MLFLOW_TRACKING_URI``, in the experiment ``MLFLOW_EXPERIMENT_NAME``; both have its own defaults."""

    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        self._mlflow = library
        try:
            self.run_id = library.start_run(run_id=run_id, run_name=folder.path.name, nested=True).info.run_id
            if run_id is None:
                library.log_params(dict(flatten(config.model_dump(mode="json"))))
        except (library.MlflowException, ImportError) as error:
            raise UsageError(
                f"runtime.trackers=mlflow: MLflow cannot be used at {library.get_tracking_uri()}: {error} Set "
                "MLFLOW_TRACKING_URI to a server, such as http://localhost:5000, or leave the tracker out."
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        """Tells one row of ``metrics.jsonl``."""
        self._mlflow.log_metrics(_figures(row), step=row["step"], run_id=self.run_id)

    def finish(self, *, completed: bool) -> None:
        """Closes the run, which was trained to its end or not."""
        self._mlflow.end_run("FINISHED" if completed else "KILLED")


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
"""Every name in ``runtime.trackers``; its library has the same name."""


class Trackers:
    """The services that follow a run, which are closed at the end of the context.

    Args:
        names: keys of ``TRACKERS``.
        folder: the run's.
        config: its settings.

    Raises:
        UsageError: if a library is missing, or its service cannot be used.
    """

    def __init__(self, names: Iterable[str], folder: RunFolder, config: Config) -> None:
        path = folder / TRACKERS_FILE
        ids = json.loads(path.read_text()) if path.exists() else {}
        self._trackers: list[Tracker] = []
        for name, library in _libraries(names).items():
            self._trackers.append(TRACKERS[name](library, folder, config, ids.get(name)))
            ids[name] = self._trackers[-1].run_id
            write_atomically(path, json.dumps(ids))

    def log(self, row: dict[str, Any]) -> None:
        """Tells all of them one row of ``metrics.jsonl``; one that fails is left out from then on, with a warning."""
        for tracker in [*self._trackers]:
            try:
                tracker.log(row)
            except Exception as error:
                logging.warning(
                    "The tracker %s failed, and is told no more: %s. The figures are in metrics.jsonl.",
                    type(tracker).__name__,
                    error,
                )
                self._trackers.remove(tracker)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for tracker in self._trackers:
            try:
                tracker.finish(completed=error is None)
            except Exception as failure:
                logging.warning("The tracker %s could not be closed: %s", type(tracker).__name__, failure)


def check_libraries(names: Iterable[str]) -> None:
    """Makes sure that the libraries of these trackers are installed.

    Raises:
        UsageError: if one is missing.
    """
    _libraries(names)


def _libraries(names: Iterable[str]) -> dict[str, Any]:
    """Imports the library of each tracker."""
    libraries = {}
    for name in names:
        try:
            libraries[name] = importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"runtime.trackers names {name}, whose library cannot be imported ({error}). Install it with "
                f"`pip install -r requirements-{name}.txt`, or leave the tracker out."
            ) from error
    return libraries


def _figures(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a row, under names that tell training and evaluation apart."""
    return {f"{row['kind']}/{name}": value for name, value in row.items() if name not in ("kind", "step")}
