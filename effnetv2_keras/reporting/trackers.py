"""Experiment trackers: Weights & Biases and MLflow, whose libraries are optional."""

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
"""File in the run's folder with the run's id in each tracker, so that a resumed run continues there."""


class Tracker(abc.ABC):
    """An experiment tracker that receives the metrics of a run.

    Attributes:
        run_id: id of the run in the tracker.
    """

    run_id: str

    @abc.abstractmethod
    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        """Opens the run with this id, or a new run if it is None."""

    @abc.abstractmethod
    def log(self, row: dict[str, Any]) -> None:
        """Sends one row of ``metrics.jsonl``."""

    @abc.abstractmethod
    def finish(self, *, completed: bool) -> None:
        """Closes the run; ``completed`` is whether it ended without an error or interruption."""


class WandbTracker(Tracker):
    """Weights & Biases, in the project ``WANDB_PROJECT`` (default effnetv2_keras), with files in the run's folder."""

    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        try:
            self._run = library.init(
                project=os.environ.get("WANDB_PROJECT", "effnetv2_keras"),
                name=folder.path.name,
                id=run_id,
                resume="allow",
                dir=str(folder.path),
                config=dict(flatten(config.model_dump(mode="json"))),
                settings=library.Settings(console="off"),  # it would store the progress bar
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
        """Sends one row of ``metrics.jsonl``."""
        self._run.log({"step": row["step"], **_figures(row)})

    def finish(self, *, completed: bool) -> None:
        """Closes the run; ``completed`` is whether it ended without an error or interruption."""
        self._run.finish(exit_code=0 if completed else 1)


class MlflowTracker(Tracker):
    """MLflow, at ``MLFLOW_TRACKING_URI`` in the experiment ``MLFLOW_EXPERIMENT_NAME``, with the defaults of MLflow."""

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
        """Sends one row of ``metrics.jsonl``."""
        self._mlflow.log_metrics(_figures(row), step=row["step"], run_id=self.run_id)

    def finish(self, *, completed: bool) -> None:
        """Closes the run; ``completed`` is whether it ended without an error or interruption."""
        self._mlflow.end_run("FINISHED" if completed else "KILLED")


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
"""Trackers by the name in ``runtime.trackers``, which is also the name of the library."""


class Trackers:
    """The trackers of a run. As a context manager, it closes them at the end of the ``with`` block.

    Args:
        names: keys of ``TRACKERS``.
        folder: folder of the run.
        config: configuration of the run.

    Raises:
        UsageError: if a library is missing, or a tracker cannot be used.
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
        """Sends one row of ``metrics.jsonl`` to all trackers; a tracker that fails is dropped with a warning."""
        for tracker in [*self._trackers]:
            try:
                tracker.log(row)
            except Exception as error:
                logging.warning(
                    "The tracker %s failed and receives no more metrics: %s. All metrics are in metrics.jsonl.",
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
    """Checks that the libraries of trackers are installed.

    Args:
        names: keys of ``TRACKERS``.

    Raises:
        UsageError: if a library is missing.
    """
    _libraries(names)


def _libraries(names: Iterable[str]) -> dict[str, Any]:
    """Returns the imported library of each tracker."""
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
    """Returns the metrics of a row, with the kind of row as a prefix of their names."""
    return {f"{row['kind']}/{name}": value for name, value in row.items() if name not in ("kind", "step")}
