"""``--mode=train``: trains a network, or resumes the run in ``--model_dir``."""

from __future__ import annotations

import os

from effnetv2_keras.config import CONFIG_FILE, Config, ModelConfig
from effnetv2_keras.config.overrides import parse_all_overrides
from effnetv2_keras.distribution.rejoin import restart
from effnetv2_keras.errors import WorkerLost
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.runs import commands
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.training import loop


def run_config(invocation: Invocation) -> Config:
    """Returns the configuration of a new run, or of the run in ``--model_dir`` with the settings that are given.

    Where a recipe is named, by ``--dataset_cfg`` or the setting ``recipe``, all settings count as given.

    Raises:
        ConfigError: as ``Invocation.config``, or if ``--model_dir`` is not given.
        RunFolderError: if the configuration or the data of the run cannot be read.
    """
    folder = RunFolder(invocation.model_dir())
    changes = parse_all_overrides(invocation.options.hparam_str)
    if not (folder / CONFIG_FILE).is_file() or "dataset_cfg" in invocation.given or "recipe" in changes:
        return invocation.config()
    config = folder.config()
    if "model_name" in invocation.given:
        named = ModelConfig(model_name=invocation.options.model_name)
        stored = config.model
        same = named.network == stored.network if named.network else named.model_name == stored.model_name
        changes = changes if same else {"model.model_name": named.model_name, **changes}
    config = config.override({**invocation.data_changes(), **changes})
    place = config.data.data_dir
    if place and not os.path.exists(place) and not {"data_dir", "hparam_str"} & invocation.given:
        raise RunFolderError(
            f"The images of {folder.path} are not at {place} any more{_seen_from(place)}. Put them back, or say where "
            f"they are now:\n  {commands.resume(folder.path, '--data_dir=FOLDER')}"
        )
    return config


def _seen_from(place: str) -> str:
    return "" if os.path.isabs(place) else f" (seen from {os.getcwd()})"


def run(invocation: Invocation) -> None:
    """Trains; if another worker is lost and ``--rejoin`` is on, restarts this process to wait for it."""
    strategy = invocation.strategy()  # before anything is computed, as workers need it
    config = run_config(invocation)
    try:
        loop.train(config, invocation.model_dir(), strategy=strategy, console=invocation.console)
    except WorkerLost as loss:
        if not invocation.options.rejoin:
            raise
        restart(loss)
