"""The settings that each mode reads, so that ``--hparam_str`` is never ignored (no TensorFlow).

``train``, ``plan``, ``preview`` and ``search`` take a whole configuration. The others read only a few settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from absl import logging

from effnetv2_keras.config.reference_keys import RENAMED
from effnetv2_keras.errors import ConfigError


class Reads(NamedTuple):
    """Settings that a mode reads.

    Attributes:
        names: settings, and sections with a dot at the end.
        never: settings in these sections that the mode does not read.
        told: sections that the mode does not read either, but that only get a warning, because the configuration of a
            training run may be given as a whole.
    """

    names: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def unread(self, changes: Iterable[str]) -> list[str]:
        """Returns those of the given settings that the mode does not read."""
        names = {key: RENAMED.get(key, key) for key in changes}
        return [
            key
            for key, name in names.items()
            if name in self.never or not any(name == read or name.startswith(_section(read)) for read in self.names)
        ]


def _section(name: str) -> str:
    """Returns the beginning of the settings in a section; for a single setting, what no setting begins with."""
    return name if name.endswith(".") else f"{name}."


_TRAINING = (
    "data.crop_area", "data.crop_aspect", "data.hflip", "data.augment", "data.augment_arithmetic", "data.ra_num_layers",
    "data.cutout", "data.cache", "data.balanced_sampling", "data.shuffle_buffer", "data.service", "eval.every_epochs",
    "eval.min_steps", "model.survival_prob", "model.bn_momentum",
)  # fmt: skip

_RUN = ("train.", "progressive.", "runtime.", "search.")

NOTHING = Reads()
EVALUATION_OF_A_RUN = Reads(("data.", "eval.", "precision.policy"), _TRAINING)
EVALUATION_OF_AN_EXPORT = Reads(("recipe", "data.", "eval.", "train.loss_type"), _TRAINING, _RUN)
EVALUATION_OF_WEIGHTS = Reads(
    ("recipe", "model.", "data.", "eval.", "precision.policy", "train.ft_init_ckpt", "train.ft_init_ema",
     "train.loss_type"),
    _TRAINING,
    _RUN,
)  # fmt: skip
PREDICTION = Reads(("data.unreadable", "data.exif_orientation", "data.max_value", "eval.tta"))
_CALIBRATION = Reads(("data.",), (*_TRAINING, "data.verify", "data.max_unreadable"))
SUMMARY = Reads(("model.model_name", "model.network", "eval.isize"))
BENCHMARK = Reads(
    ("model.model_name", "model.network", "model.act_fn", "model.normalization", "eval.isize", "precision.policy")
)  # fmt: skip


def reads_of_export(quantize: str) -> Reads:
    """Returns the settings that an export of a run reads; only ``"int8"`` needs images."""
    return _CALIBRATION if quantize == "int8" else NOTHING


def check_read(changes: Mapping[str, Any], reads: Reads, what: str) -> None:
    """Checks that every setting to change is one that is read.

    Args:
        changes: new values by dotted name.
        reads: the settings that are read.
        what: subject of the error message, such as ``"--mode=predict"``.

    Raises:
        ConfigError: if a setting would change nothing; the message names those that are read.
    """
    unread = reads.unread(changes)
    told = [key for key in unread if key.startswith(reads.told)] if reads.told else []
    if told:
        logging.warning("%s does not read the settings of training: %s change nothing.", what, ", ".join(told))
        unread = [key for key in unread if key not in told]
    if not unread:
        return
    known = [f"{name}*" if name.endswith(".") else name for name in reads.names]
    never = [name for name in reads.never if name.startswith(reads.names)]
    allowed = f"reads only {', '.join(known)}" if known else "reads no settings"
    excluded = f" (without {', '.join(never)})" if set(never) & set(unread) else ""
    raise ConfigError(
        f"{what} {allowed}{excluded}, so "
        f"{', '.join(unread)} would change nothing. Leave {'it' if len(unread) == 1 else 'them'} out of --hparam_str."
    )
