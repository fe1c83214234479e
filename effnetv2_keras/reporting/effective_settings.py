"""The settings of a run that had an effect on it, for the report."""

from __future__ import annotations

from typing import Any, Callable

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten

_Condition = Callable[[Config], Any]
_KERAS = "keras:"
_ONLY_IF: dict[str, _Condition] = {
    "search.": lambda config: False,
    "eval.sizes": lambda config: False,  # --mode=eval
    "model.network": lambda config: False,  # the file that model_name names
    "model.act_fn": lambda config: not config.model.model_name.startswith(_KERAS),
    "model.bn_epsilon": lambda config: not config.model.model_name.startswith(_KERAS),
    "progressive.order": lambda config: config.progressive.stages > 1,
    "progressive.schedule": lambda config: config.progressive.stages > 1,
    "progressive.size_multiple": lambda config: config.progressive.size_multiple > 1,
    "progressive.randaug_magnitude.": lambda config: config.data.augment in ("randaug", "ra_aa"),
    "progressive.mixup_alpha.": lambda config: any(stage.mixup_alpha for stage in _stages(config)),
    "progressive.cutmix_alpha.": lambda config: any(stage.cutmix_alpha for stage in _stages(config)),
    "train.min_steps": lambda config: config.train.min_steps,
    "train.lr_decay_": lambda config: config.train.lr_sched == "exponential",
    "train.lr_min": lambda config: config.train.lr_min,
    "train.weight_decay_exclude": lambda config: config.train.weight_decay,
    "train.weight_decay_inc": lambda config: config.train.weight_decay and config.train.weight_decay_inc,
    "train.gclip": lambda config: config.train.gclip,
    "train.ft_init_ema": lambda config: config.train.ft_init_ckpt,
    "data.tfds_name": lambda config: config.data.source == "tfds",
    "data.holdout": lambda config: config.data.source in ("folder", "csv"),
    "data.first_label": lambda config: config.data.source == "tfrecord",
    "data.label_separator": lambda config: config.data.multi_label,
    "data.max_unreadable": lambda config: config.data.unreadable == "skip",
    "data.augment_arithmetic": lambda config: config.data.augment != "none" or config.data.cutout,
    "data.ra_num_layers": lambda config: config.data.augment in ("randaug", "ra_aa"),
    "data.cache": lambda config: config.data.has_copies,
    "data.shuffle_buffer": lambda config: config.data.source in ("tfds", "tfrecord"),
    "runtime.max_rollbacks": lambda config: config.runtime.nan_policy == "rollback",
    "runtime.rollback_lr_factor": lambda config: config.runtime.nan_policy == "rollback",
}
"""Conditions of settings, or of all whose names begin so: without them, the setting changes nothing in a run."""


def effective_settings(config: Config) -> dict[str, list[tuple[str, str, bool]]]:
    """Returns the settings that had an effect on a run.

    Those that only matter with another setting are left out, and so are those that are off by default.

    Args:
        config: configuration of the run.

    Returns:
        Name, value in the syntax of ``--hparam_str``, and whether it differs from the default, by section.
    """
    defaults = dict(flatten(Config().model_dump()))
    settings: dict[str, list[tuple[str, str, bool]]] = {}
    for key, value in flatten(config.model_dump()):
        changed = value != defaults[key]
        off = value is None or value is False or value == ()
        unused = any(key.startswith(name) and not applies(config) for name, applies in _ONLY_IF.items())
        if unused or (off and not changed):
            continue
        section, name = key.split(".", 1)
        settings.setdefault(section, []).append((name, _written(value), changed))
    return settings


def _stages(config: Config) -> Any:
    return config.plan(config.progressive.stages)


def _written(value: Any) -> str:
    return "|".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
