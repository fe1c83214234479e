"""The weights of the classes of a run, which stay the same when it is resumed, alike on all workers."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.data.class_weights import BALANCED, find_class_weights, read_class_weights
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.distribution.strategy import make_agreement, worker_of
from effnetv2_keras.runs.run_folder import CLASS_WEIGHTS_FILE, RunFolder, RunFolderError, write_atomically


def weights_of_run(
    config: Config, folder: RunFolder, strategy: tf.distribute.Strategy, source: Source
) -> tuple[float, ...]:
    """Returns the weights of ``find_class_weights`` for a run; a resumed run has those with which it began.

    The first worker finds them. A new run writes them into its folder, so a resumed run does not count again, and
    notices that a file has changed.

    Raises:
        DataError: as ``find_class_weights``.
        RunFolderError: if the folder of a resumed run lacks the weights, or the file has others now.
    """
    if config.train.class_weights is None:
        return ()
    worker, agree = worker_of(strategy), make_agreement(strategy)
    error: Exception | None = None
    if worker.is_chief:
        try:
            _settle(config, folder, source)
        except Exception as caught:  # the other workers wait for the result
            error = caught
    if agree(float(error is not None)):
        raise error or DataError("The first worker cannot use train.class_weights; its message says why.")
    return _stored(folder, source.class_names)


def _settle(config: Config, folder: RunFolder, source: Source) -> None:
    """Writes the weights of a new run to its folder; checks that the file of a resumed run has not changed.

    A file that is gone does not matter, because its weights are in the folder.
    """
    chosen = str(config.train.class_weights)
    if not (folder / CONFIG_FILE).exists():
        found = find_class_weights(config, source)
        with folder.writable():
            folder.path.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / CLASS_WEIGHTS_FILE, json.dumps(dict(zip(source.class_names, found)), indent=1))
    elif chosen != BALANCED and pathlib.Path(chosen).exists():
        stored = np.array(_stored(folder, source.class_names))
        given = np.array(read_class_weights(chosen, source.class_names))
        if not np.allclose(given / given.sum(), stored / stored.sum(), rtol=1e-6, atol=0.0):
            raise RunFolderError(
                f"{chosen} has other weights than when the run in {folder.path} began; those are in "
                f"{CLASS_WEIGHTS_FILE} of that folder. Put them back to resume the run, or use another --model_dir for "
                "a new run."
            )


def _stored(folder: RunFolder, class_names: Sequence[str]) -> tuple[float, ...]:
    try:
        return read_class_weights(str(folder / CLASS_WEIGHTS_FILE), class_names)
    except DataError as error:
        raise RunFolderError(
            f"The weights with which the run began cannot be read. {error} Restore the file from a copy, or begin a "
            "new run in another --model_dir."
        ) from error
