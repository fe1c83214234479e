"""One trial in a process of its own: ``python -m effnetv2_keras.search.trial FOLDER``.

The folder says what to do (``trial.yaml``, the configuration; ``reference.json``, the backbone) and takes what is found
(``result.json``, and ``run``, the training). A trial that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
from typing import Any

import filelock

import effnetv2_keras.environment  # noqa: F401  before TensorFlow
from effnetv2_keras.config import Config
from effnetv2_keras.specs import ModelSpec

CONFIG, REFERENCE, RESULT, STEP_TIME, RUN, LOG, LOCK = (
    "trial.yaml", "reference.json", "result.json", "step_time.json", "run", "log.txt", ".lock",
)  # fmt: skip
TOO_SLOW = "too_slow"

_PATIENCE = 300  # seconds

EXIT_INTERRUPTED = 75
EXIT_UNUSABLE = 2
"""Exit status for settings or data that no other trial could use either."""


def run_trial(folder: pathlib.Path, strategy_name: str) -> dict[str, Any]:
    """Measures the step time of a network, trains it for a short while, and notes the result.

    Returns:
        ``step_time``, and unless that is over the limit: ``accuracy`` of the last evaluation, ``metric``, which figure
        of it that is, ``images`` that were evaluated, and ``seconds`` of training.
    """
    from effnetv2_keras.data.splits import open_splits
    from effnetv2_keras.headline import headline_of_best
    from effnetv2_keras.search.step_time import relative_step_time
    from effnetv2_keras.training.disk import write_atomically
    from effnetv2_keras.training.loop import train
    from effnetv2_keras.training.strategy import make_strategy

    config = Config.from_yaml((folder / CONFIG).read_text())
    strategy, splits = make_strategy(strategy_name), open_splits(config.data)
    if not (folder / STEP_TIME).exists():
        step_time = relative_step_time(
            config,
            config.spec,
            ModelSpec.from_json((folder / REFERENCE).read_text()),
            strategy,
            num_classes=len(splits.train.class_names),
            steps=config.search.timing_steps,
        )
        write_atomically(folder / STEP_TIME, json.dumps(step_time))
    result: dict[str, Any] = {"step_time": json.loads((folder / STEP_TIME).read_text())}
    limit = config.search.max_step_time
    if limit is not None and result["step_time"] > limit:
        result[TOO_SLOW] = result["step_time"] / limit - 1
    else:
        row = train(config, folder / RUN, strategy=strategy, splits=splits)
        metric = headline_of_best(row)
        result |= {
            "accuracy": row[metric],
            "metric": metric,
            "images": splits.evaluation.num_examples,
            "seconds": row["seconds"],
        }
    write_atomically(folder / RESULT, json.dumps(result, indent=1))
    return result


def _end_with_parent() -> None:
    """Asks this process to save and end when the one that started it is gone, which closes our standard input."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs the trial that the command line names; the exit status says how it ended."""
    from effnetv2_keras.data.sources import DataError
    from effnetv2_keras.errors import ConfigError, Interrupted, TrainingDiverged, UsageError

    folder, strategy_name = pathlib.Path(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with filelock.FileLock(folder / LOCK, timeout=_PATIENCE):  # one whose parent was killed may still be saving
            run_trial(folder, strategy_name)
    except Interrupted as stop:
        print(stop, flush=True)
        sys.exit(EXIT_INTERRUPTED)
    except (ConfigError, DataError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(EXIT_UNUSABLE)
    except (UsageError, TrainingDiverged) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
