"""Runs trials in a separate process, so that a crash of a trial does not end the search (no TensorFlow)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import effnetv2_keras
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.config import Config, ProgressiveConfig, RampConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import QUANTITIES
from effnetv2_keras.reporting.primary_metric import primary_metric_key
from effnetv2_keras.runs.disk import write_atomically
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.search import trial
from effnetv2_keras.search.study import Outcome

NETWORK_FILE = "network.json"

_ROOT = str(pathlib.Path(effnetv2_keras.__file__).parents[1])
"""The folder of this package, so that the process of the trials finds it from any working directory."""

_LONGEST_REASON = 300  # characters
_POLL, _PATIENCE = 0.2, 120.0  # seconds

OnEpoch = Callable[[int, float, float], bool]
"""Called after each evaluation with its number from 1, accuracy and step time; returns whether the trial must stop."""


class TrialFailed(Exception):  # noqa: N818 - says what happened
    """The trial ended without a result; the message says why."""


class TooSlow(Exception):  # noqa: N818 - says what happened
    """The step time of the network exceeds the limit.

    Args:
        step_time: time of a training step divided by that of the backbone.
        share: by how much ``step_time`` exceeds the limit, as a share of the limit.
    """

    def __init__(self, step_time: float, share: float) -> None:
        super().__init__(f"a step takes {step_time:.2f} times as long as that of the backbone")
        self.step_time, self.share = step_time, share


class NotWorthIt(Exception):  # noqa: N818 - says what happened
    """The trial was stopped early, because other trials are better."""


class Asked(Exception):  # noqa: N818 - says what happened
    """The search was asked to stop during a trial; the state of the trial is saved."""


def short_training(config: Config) -> Config:
    """Returns the configuration of a trial: a short training at one small image size (paper section 3.3).

    The regularization is that of the first stage, which suits small images. The warm-up is at most a fifth of the
    training.

    Args:
        config: configuration of the search.
    """
    search, train = config.search, config.train
    size, ramps = search_size(config), config.progressive
    fixed = {
        name: RampConfig(start=getattr(ramps, name).start, end=getattr(ramps, name).start)
        for name in QUANTITIES
        if name != "image_size"
    }
    changes = {
        "progressive": ProgressiveConfig(stages=1, image_size=RampConfig(start=size, end=size), **fixed),
        "train": train.model_copy(
            update={
                "epochs": search.epochs,
                "min_steps": 0,
                "lr_warmup_epoch": min(train.lr_warmup_epoch, search.epochs / 5),
                "ft_init_ckpt": None,
                "accumulation_steps": train.accumulation_steps[-1:],
            }
        ),
        "eval": config.eval.model_copy(update={"isize": size, "every_epochs": 1.0}),
        "runtime": config.runtime.model_copy(
            update={"preflight": False, "tensorboard": False, "keep_checkpoint_max": 1, "trackers": ()}
        ),
        "search": search.model_copy(update={"storage": None}),  # keeps the password out of the folder of the trial
    }
    return config.model_copy(update=changes)


def search_size(config: Config) -> int:
    """Returns the side of the images of the trials, pixels."""
    return config.search.image_size or round(config.progressive.image_size.start)


class TrialRunner:
    """Evaluates networks, each in a subfolder of ``folder`` with the name of the network.

    One process trains the networks one after the other. After a trial that fails or is stopped, the next trial starts a
    new process.

    Args:
        folder: folder of all trials.
        config: configuration of the search.
        backbone: the reference network of the step times.
        strategy: name of the distribution strategy of the trials, as for ``--strategy``.
    """

    def __init__(self, folder: pathlib.Path, config: Config, backbone: ModelSpec, strategy: str) -> None:
        self._folder, self._config, self._backbone, self._strategy = folder, config, backbone, strategy
        self._process: subprocess.Popen[str] | None = None

    def run(self, spec: ModelSpec, on_epoch: OnEpoch, on_wait: Callable[[], bool]) -> Outcome:
        """Measures and trains a network, or resumes its training, and returns the outcome.

        Args:
            spec: the network.
            on_epoch: called after each evaluation.
            on_wait: called a few times per second; if it returns True, the trial stops and can be resumed.

        Raises:
            TrialFailed: if the trial ended without a result.
            TooSlow: if the step time exceeds ``search.max_step_time``.
            NotWorthIt: if ``on_epoch`` stopped the trial.
            Asked: if ``on_wait`` stopped the trial, or its process was interrupted.
            UsageError: if the settings or data would make every other trial fail, too.
        """
        folder = self._folder / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        network = folder / NETWORK_FILE
        write_atomically(network, spec.to_json())
        write_atomically(folder / trial.REFERENCE, self._backbone.to_json())
        # The configuration holds the JSON instead of its path, so that the folder can be moved or mounted elsewhere.
        named = {"model.model_name": f"{spec.name}.json", "model.network": spec.to_json()}
        config = short_training(self._config).override(named)
        write_atomically(folder / trial.CONFIG, config.to_yaml())
        try:
            if not (folder / trial.RESULT).exists():
                self._wait_for(folder, on_epoch, on_wait)
        except (NotWorthIt, TrialFailed):
            self._forget_weights(folder)
            raise
        self._forget_weights(folder)
        result = trial.read_result(folder)
        if trial.TOO_SLOW in result:
            raise TooSlow(result["step_time"], result[trial.TOO_SLOW])
        details = {name: result[name] for name in ("metric", "images", "seconds")}
        return Outcome(result["accuracy"], result["step_time"], details)

    def _forget_weights(self, folder: pathlib.Path) -> None:
        if self._config.search.keep_checkpoints:
            return
        for name in ("checkpoints", "best"):
            shutil.rmtree(folder / trial.RUN / name, ignore_errors=True)

    def _wait_for(self, folder: pathlib.Path, on_epoch: OnEpoch, on_wait: Callable[[], bool]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        process, epochs = self._process, 0
        try:
            with contextlib.suppress(BrokenPipeError):  # the process died while it was idle
                print(folder.resolve(), file=process.stdin, flush=True)
            while process.poll() is None and not (folder / trial.RESULT).exists():
                time.sleep(_POLL)
                if on_wait():
                    raise Asked
                for accuracy, step_time in self._new_epochs(folder, epochs):
                    epochs += 1
                    if on_epoch(epochs, accuracy, step_time):
                        raise NotWorthIt
        except BaseException:
            self.close()
            raise
        if not (folder / trial.RESULT).exists():
            self._explain(process.wait(), folder / trial.LOG)

    def _start(self) -> subprocess.Popen[str]:
        # Its standard input closes when this process ends, even if it is killed. Then the process saves and ends, too.
        return subprocess.Popen(
            [sys.executable, "-m", trial.__name__, self._strategy],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))},
            start_new_session=True,  # Ctrl-C only reaches this process, which then stops the other
        )

    @staticmethod
    def _explain(status: int, log: pathlib.Path) -> None:
        """Raises the exception for a trial that ended without a result."""
        if status == trial.EXIT_UNUSABLE:
            raise UsageError(_last_words(log))
        if status == trial.EXIT_INTERRUPTED:
            raise Asked
        raise TrialFailed(_reason(status, log))

    def close(self) -> None:
        """Makes the process of the trials save and end, and waits for it; kills it after 120 s."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _new_epochs(self, folder: pathlib.Path, known: int) -> list[tuple[float, float]]:
        """Returns accuracy and step time of each evaluation after the first ``known`` ones."""
        rows = [row for row in RunFolder(folder / trial.RUN).metrics() if row["kind"] == "eval"]
        if len(rows) <= known:
            return []
        step_time = trial.read_step_time(folder)
        return [(row[primary_metric_key(row)], step_time) for row in rows[known:]]


def _reason(status: int, log: pathlib.Path) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}{', perhaps because memory ran out' if name == 'SIGKILL' else ''}; see {log}"
    return f"{_last_words(log)} (exit status {status}; see {log})"


def _last_words(log: pathlib.Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else "the trial printed nothing"
