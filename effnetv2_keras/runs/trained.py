"""Loading of the trained network of a run from one of its checkpoints."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.basics.activity import doing
from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.config import CONFIG_FILE, Config
from effnetv2_keras.models.checkpointed import checkpointed
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.runs.checkpoint_files import CheckpointFiles
from effnetv2_keras.runs.disk import RunFolderError
from effnetv2_keras.runs.run_folder import DATA_FILE, RunFolder
from effnetv2_keras.runs.usable import BEST_METRIC, newest_intact

Which = Literal["best", "latest"]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and the facts about its run that its use needs.

    Attributes:
        model: the network, which returns float32 logits ``[N, classes]``.
        config: configuration of the run.
        class_names: names of the classes, in label order.
        step: training step of the checkpoint.
    """

    model: tf.keras.Model
    config: Config
    class_names: tuple[str, ...]
    step: int

    @property
    def spec(self) -> specs.AnySpec:
        """The network that the configuration describes."""
        return self.config.spec


@doing("loading the network")
def load_trained(
    model_dir: str | pathlib.Path,
    *,
    which: Which = "best",
    use_ema: bool = True,
) -> Trained:
    """Returns the network of a run with the weights of one of its checkpoints.

    Args:
        model_dir: folder of the run.
        which: ``"best"``, the checkpoint with the best evaluation (the latest one if there was no evaluation yet), or
            ``"latest"``.
        use_ema: whether to use the moving average of the weights, if the run keeps one.

    Raises:
        RunFolderError: if the folder holds no run, the run has no checkpoint yet, or the best checkpoint or all of them
            are damaged, or the checkpoint is of another network or number of classes.
    """
    folder = RunFolder(model_dir)
    config, class_names = folder.config(), folder.class_names()
    path = _path_of(folder, which)
    model = build_for(config, len(class_names))
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    role = "ema_model" if use_ema and config.train.ema_decay else "model"
    try:
        with read_literally(path) as readable:
            parts = {role: checkpointed(model), "step": step}
            status = tf.train.Checkpoint(**parts).restore(readable).expect_partial()
        status.assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise RunFolderError(
            f"The checkpoint {path} does not fit the network of {folder / CONFIG_FILE} with the {len(class_names)} "
            f"classes of {folder / DATA_FILE}: {error} Restore intact copies of these files."
        ) from error
    return Trained(model, config, class_names, int(step.numpy()))


def _path_of(folder: RunFolder, which: Which) -> str:
    """Returns the path prefix of the checkpoint to load.

    For ``"latest"``, a damaged checkpoint is skipped, and the newest intact one is used.

    Raises:
        RunFolderError: if there is no checkpoint, the best one is damaged (for ``"best"``), or all are damaged.
    """
    best, recent = CheckpointFiles(folder / "best"), CheckpointFiles(folder / "checkpoints")
    if which == "best" and (best.steps or (folder / "best" / BEST_METRIC).exists()):
        step, damages = best.newest_intact()
        if damages or step is None:
            reason = "; ".join(damages.values()) or "its files are missing"
            raise RunFolderError(
                f"The best checkpoint of {folder.path} cannot be read: {reason}. Use the latest one instead: "
                "--weights=latest"
            )
        return best.prefix(step)
    step = newest_intact(recent, folder)
    if step is None:
        raise RunFolderError(
            f"{folder.path} has no checkpoint yet. Train first: --mode=train --model_dir={folder.path}"
        )
    return recent.prefix(step)
