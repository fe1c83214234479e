"""Experiment trackers for runs: Weights & Biases and MLflow, each with its own optional library."""

from __future__ import annotations

import abc
import importlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from absl import logging

from effnetv2_keras.basics.packages import install_command
from effnetv2_keras.basics.small_files import parse_json, read_text
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.errors import UsageError
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

TRACKERS_FILE = "trackers.json"
"""File in the folder of a run with the id of the run at each tracker, so that a resumed run keeps its ids."""


class Tracker(abc.ABC):
    """A service that records the metrics of a run.

    Attributes:
        run_id: id of the run at the service.
    """

    run_id: str

    @abc.abstractmethod
    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        """Opens the run with this id, or a new run if ``run_id`` is None."""

    @abc.abstractmethod
    def log(self, row: dict[str, Any]) -> None:
        """Sends a row of ``metrics.jsonl`` to the service."""

    @abc.abstractmethod
    def finish(self, *, completed: bool) -> None:
        """Closes the run; ``completed`` says whether it was trained to the end."""


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
                settings=library.Settings(console="off"),  # does not record the progress bar
            )
        except library.Error as error:
            raise UsageError(
                f"runtime.trackers=wandb: Weights & Biases cannot be used: {error} Log in with `wandb login`, set "
                "WANDB_MODE=offline, or remove wandb from runtime.trackers."
            ) from error
        self.run_id = self._run.id
        for kind in ("train", "eval"):
            self._run.define_metric(f"{kind}/*", step_metric="step")

    def log(self, row: dict[str, Any]) -> None:
        """Sends a row of ``metrics.jsonl`` to Weights & Biases."""
        self._run.log({"step": row["step"], **_figures(row)})

    def finish(self, *, completed: bool) -> None:
        """Closes the run, with exit code 0 if it was completed, otherwise 1."""
        self._run.finish(exit_code=0 if completed else 1)


class MlflowTracker(Tracker):
    """MLflow, at ``MLFLOW_TRACKING_URI`` in the experiment ``MLFLOW_EXPERIMENT_NAME``, both with MLflow's defaults."""

    def __init__(self, library: Any, folder: RunFolder, config: Config, run_id: str | None) -> None:
        self._mlflow = library
        try:
            self.run_id = library.start_run(run_id=run_id, run_name=folder.path.name, nested=True).info.run_id
            if run_id is None:
                library.log_params(dict(flatten(config.model_dump(mode="json"))))
        except (library.MlflowException, ImportError) as error:
            raise UsageError(
                f"runtime.trackers=mlflow: MLflow cannot be used at {library.get_tracking_uri()}: {error} Set "
                "MLFLOW_TRACKING_URI to a server, such as http://localhost:5000, or remove mlflow from "
                "runtime.trackers."
            ) from error

    def log(self, row: dict[str, Any]) -> None:
        """Sends a row of ``metrics.jsonl`` to MLflow."""
        self._mlflow.log_metrics(_figures(row), step=row["step"], run_id=self.run_id)

    def finish(self, *, completed: bool) -> None:
        """Closes the run, with the status FINISHED if it was completed, otherwise KILLED."""
        self._mlflow.end_run("FINISHED" if completed else "KILLED")


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
"""The class of each name in ``runtime.trackers``; the library of a tracker has the same name."""


def _read_ids(path: pathlib.Path) -> dict[str, str]:
    """Returns the run that each tracker has for this folder; none, with a warning, if the file is damaged."""
    try:
        ids = parse_json(read_text(path)) if path.exists() else {}
    except ValueError as error:
        logging.warning("%s cannot be read (%s); the trackers begin new runs.", path, error)
        return {}
    return {name: value for name, value in ids.items() if isinstance(value, str)}


class Trackers:
    """The trackers of a run, as a context manager that closes them at the end of the ``with`` block.

    Args:
        names: keys of ``TRACKERS``.
        folder: folder of the run.
        config: settings of the run.

    Raises:
        UsageError: if a library is missing, or its service cannot be used.
    """

    def __init__(self, names: Iterable[str], folder: RunFolder, config: Config) -> None:
        path = folder / TRACKERS_FILE
        ids = _read_ids(path)
        self._trackers: list[Tracker] = []
        for name, library in _libraries(names).items():
            self._trackers.append(TRACKERS[name](library, folder, config, ids.get(name)))
            ids[name] = self._trackers[-1].run_id
            write_atomically(path, json.dumps(ids))

    def log(self, row: dict[str, Any]) -> None:
        """Sends a row of ``metrics.jsonl`` to all trackers; a tracker that fails gets no more rows, with a warning."""
        for tracker in [*self._trackers]:
            try:
                tracker.log(row)
            except Exception as error:
                logging.warning(
                    "The tracker %s failed and gets no more metrics: %s. All metrics are in metrics.jsonl.",
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
    """Raises UsageError unless the libraries of these trackers are installed.

    Raises:
        UsageError: if a library cannot be imported.
    """
    _libraries(names)


def _libraries(names: Iterable[str]) -> dict[str, Any]:
    """Imports and returns the library of each tracker, by name of the tracker."""
    libraries = {}
    for name in names:
        try:
            libraries[name] = importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"runtime.trackers names {name}, whose library cannot be imported ({error}). Install it with "
                f"`{install_command(name)}`, or remove {name} from runtime.trackers."
            ) from error
    return libraries


def _figures(row: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of a row, with ``train/`` or ``eval/`` before their names."""
    return {f"{row['kind']}/{name}": value for name, value in row.items() if name not in ("kind", "step")}
