"""The process that runs trials: ``python -m effnetv2_keras.search.trial STRATEGY``, with folders on standard input.

Each line of standard input is the folder of a trial. The process reads ``trial.yaml`` (the configuration) and
``reference.json`` (the backbone) from it, and writes ``result.json``, ``run`` (the training) and ``log.txt`` (all
output) to it. An interrupted trial is resumed. The process ends after the first trial that fails. When standard input
closes, the process saves and ends.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import queue
import signal
import sys
import threading
from typing import Any, NoReturn

import filelock

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.basics.ending import end_process
from effnetv2_keras.basics.small_files import read_json
from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError

CONFIG, REFERENCE, RESULT, STEP_TIME, RUN, LOG, LOCK = (
    "trial.yaml", "reference.json", "result.json", "step_time.json", "run", "log.txt", ".lock",
)  # fmt: skip
TOO_SLOW = "too_slow"

_PATIENCE = 300  # seconds

EXIT_INTERRUPTED = 75
EXIT_UNUSABLE = 2
"""Exit status if the settings or data would make every other trial fail, too."""


class Trials:
    """Measures and trains networks one after the other.

    Args:
        strategy: name of the distribution strategy, as for ``make_strategy``.
    """

    def __init__(self, strategy: str) -> None:
        import tensorflow as tf

        from effnetv2_keras.distribution.strategy import make_strategy

        for device in tf.config.list_physical_devices("GPU"):  # other trials may share it
            tf.config.experimental.set_memory_growth(device, True)
        self._strategy = make_strategy(strategy)
        self._stopwatches: dict[str, Any] = {}

    def run(self, folder: pathlib.Path) -> None:
        """Measures the step time of a network, runs its short training, and writes ``result.json``.

        The result has ``step_time``. If it exceeds the limit, the result also has ``too_slow``, the excess as a share
        of the limit, and the network is not trained. Otherwise the result also has ``accuracy`` (of the last
        evaluation), ``metric`` (the name of this accuracy), ``images`` (number of evaluated images) and ``seconds`` (of
        training).

        Args:
            folder: folder of the trial.
        """
        from effnetv2_keras.data.splits import open_splits
        from effnetv2_keras.reporting.primary_metric import primary_metric_key
        from effnetv2_keras.runs.disk import write_atomically
        from effnetv2_keras.training.loop import train

        config = Config.from_yaml((folder / CONFIG).read_text())
        splits = open_splits(config.data)
        if not (folder / STEP_TIME).exists():
            step_time = self._step_time(config, (folder / REFERENCE).read_text(), len(splits.train.class_names))
            write_atomically(folder / STEP_TIME, json.dumps(step_time))
        result: dict[str, Any] = {"step_time": read_step_time(folder)}
        limit = config.search.max_step_time
        if limit is not None and result["step_time"] > limit:
            result[TOO_SLOW] = result["step_time"] / limit - 1
        else:
            row = train(config, folder / RUN, strategy=self._strategy, splits=splits)
            metric = primary_metric_key(row)
            images = splits.evaluation.num_examples
            result |= {"accuracy": row[metric], "metric": metric, "images": images, "seconds": row["seconds"]}
        write_atomically(folder / RESULT, json.dumps(result, indent=1))

    def _step_time(self, config: Config, reference: str, num_classes: int) -> float:
        """Returns the step time relative to the reference, which is compiled once for trials with equal settings."""
        from effnetv2_keras.search.step_time import Stopwatch
        from effnetv2_keras.training.preflight import explained_shortage

        alike = config.model_copy(update={"model": config.model.model_copy(update={"model_name": "", "network": None})})
        key = alike.to_yaml() + reference
        with explained_shortage(config, self._strategy.num_replicas_in_sync):
            if key not in self._stopwatches:
                backbone = ModelSpec.from_json(reference)
                self._stopwatches = {key: Stopwatch(config, backbone, self._strategy, num_classes=num_classes)}
            return float(self._stopwatches[key].relative_time(config.spec, steps=config.search.timing_steps))


def read_step_time(folder: pathlib.Path) -> float:
    """Returns the measured step time of a trial, relative to the backbone.

    Raises:
        UsageError: if its file is damaged.
    """
    advice = "Remove the file; the same command then measures it again."
    value: float = read_json(folder / STEP_TIME, (int, float), advice=advice)
    if not 0 < value < math.inf:
        raise UsageError(f"{folder / STEP_TIME} cannot be read: {value} is not a time. {advice}")
    return value


def read_result(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the result of a trial, see ``Trials.run``.

    Raises:
        UsageError: if its file is damaged.
    """
    advice = "Remove the file; the same command then resumes the trial."
    result: dict[str, Any] = read_json(folder / RESULT, advice=advice)
    numbers = ("step_time", TOO_SLOW) if TOO_SLOW in result else ("step_time", "accuracy", "images", "seconds")
    lacking = [name for name in numbers if type(result.get(name)) not in (int, float) or not result[name] < math.inf]
    lacking += [] if TOO_SLOW in result or isinstance(result.get("metric"), str) else ["metric"]
    if lacking:
        raise UsageError(f"{folder / RESULT} cannot be read: it lacks {', '.join(lacking)}. {advice}")
    return result


def _listen(folders: queue.Queue[pathlib.Path | None]) -> None:
    """Puts the folders on standard input into a queue; when it closes, makes this process save and end."""
    text = b""
    # Does not read sys.stdin, because its lock would still be held when Python ends.
    while some := os.read(0, 1 << 16):
        *lines, text = (text + some).split(b"\n")
        for line in lines:
            folders.put(pathlib.Path(os.fsdecode(line)))
    os.kill(os.getpid(), signal.SIGTERM)
    folders.put(None)  # needed if the signal arrives between two trials or after the last step of one


def _write_to(log: pathlib.Path) -> None:
    """Appends all output of this process, including TensorFlow's, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def main() -> None:
    """Runs trials until one fails or standard input closes; the exit status says how the last trial ended."""
    from effnetv2_keras.data.sources.base import DataError
    from effnetv2_keras.distribution.strategy import StrategyError
    from effnetv2_keras.errors import ConfigError, Interrupted, TrainingDiverged
    from effnetv2_keras.runs.disk import RunFolderError

    folders: queue.Queue[pathlib.Path | None] = queue.Queue()
    threading.Thread(target=_listen, args=(folders,), daemon=True).start()
    trials = None
    while folder := folders.get():
        _write_to(folder / LOG)
        try:
            # A process with a killed parent may still save, or have finished the trial.
            with filelock.FileLock(folder / LOCK, timeout=_PATIENCE):
                if not (folder / RESULT).exists():
                    trials = trials or Trials(sys.argv[1])
                    trials.run(folder)
        except (Interrupted, filelock.Timeout) as stop:
            _end(stop, EXIT_INTERRUPTED)
        except (ConfigError, DataError, RunFolderError, StrategyError) as error:
            _end(error, EXIT_UNUSABLE)
        except (UsageError, TrainingDiverged) as error:
            _end(error, 1)


def _end(error: Exception, status: int) -> NoReturn:
    """Prints the message as the last line of the log, where the search reads it, and exits with a status."""
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
    sys.exit(status)


if __name__ == "__main__":
    try:
        main()
        end_process(None)
    except SystemExit as end:
        end_process(end.code)
        raise
