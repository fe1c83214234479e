"""Settings by the names that the reference code gives them (google/automl, ``efficientnetv2/hparams.py``).

Those that are called the same here need nothing. The others are translated, or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from effnetv2_keras.errors import ConfigError


class Context(NamedTuple):
    """What the meaning of a setting depends on.

    Attributes:
        eval_size: side of the evaluation images, pixels.
        is_clean: whether augmentation has the clean arithmetic, not the reference code's.
    """

    eval_size: int
    is_clean: bool


RENAMED = {
    "model.num_classes": "data.num_classes",
    "data.ram": "progressive.randaug_magnitude.end",
    "data.mixup_alpha": "progressive.mixup_alpha.end",
    "data.cutmix_alpha": "progressive.cutmix_alpha.end",
    "data.ibase": "progressive.image_size.start",
    "data.multiclass": "data.multi_label",
    "runtime.iterations_per_loop": "runtime.steps_per_loop",
    "runtime.log_step_count_steps": "runtime.log_every",
}
"""Settings that mean the same under another name."""


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}={value!r} must be a number.") from error


def _stages(value: Any, context: Context) -> dict[str, Any]:
    """0 stages meant training at one size, which is one stage."""
    return {"progressive.stages": max(1, int(_number("train.stages", value)))}


def _train_size(value: Any, context: Context) -> dict[str, Any]:
    """Up to 16 it is a ratio to the evaluation size, rounded down to a multiple of 16 px."""
    size = _number("train.isize", value)
    return {"progressive.image_size.end": int(context.eval_size * size) // 16 * 16 if size <= 16 else int(size)}


def _dropout(value: Any, context: Context) -> dict[str, Any]:
    """One rate for the whole run."""
    return {"progressive.dropout_rate.start": value, "progressive.dropout_rate.end": value}


def _augmentation(value: Any, context: Context) -> dict[str, Any]:
    """``effnetv1_NAME``, ``ft``, ``ft_NAME`` or ``NAME``: a pipeline and what augments in it."""
    name = "none" if value is None else str(value).lower()
    if name.startswith("ft"):
        augment = next((known for known in ("autoaug", "randaug") if known in name), "none")
        covered = name == "ft" or "cutout" in name
        whole = {"data.crop_area": None, "data.crop_aspect": None}
        return {"data.pipeline": "original_finetune", "data.augment": augment, "data.cutout": covered, **whole}
    if name.startswith("effnetv1_"):
        return {"data.pipeline": "original_v1", "data.augment": name.partition("_")[2]}
    pipeline = "clean" if context.is_clean else "original_v2"
    return {"data.pipeline": pipeline, "data.augment": name}


def _normalization(value: Any, context: Context) -> dict[str, Any]:
    """``tpu_bn`` shares statistics, in groups of up to 8 replicas there; ``gn`` is GroupNorm; all else is plain."""
    if value == "gn":
        raise ConfigError("model.bn_type=gn is GroupNorm, but every published network has BatchNorm; leave it out.")
    return {"train.sync_bn": value == "tpu_bn"}


CONVERTED: dict[str, Callable[[Any, Context], dict[str, Any]]] = {
    "train.stages": _stages,
    "train.isize": _train_size,
    "model.dropout_rate": _dropout,
    "model.bn_type": _normalization,
    "data.augname": _augmentation,
}
"""Settings that need a calculation: ``(value, context) -> settings``."""

_SPEC = (
    "it makes another network; describe that as a ModelSpec, dataclasses.replace(variants.get_spec(NAME), ...), write "
    "its to_json() to a file and name that with --model_name=FILE.json"
)
_SPLITS = "splits are named as in TensorFlow Datasets: data.train_split=train[2%:],data.eval_split=train[:2%]"
_UNUSED = "the reference code never reads it"

DROPPED = {
    "model.data_format": "images are always channels_last; TensorFlow arranges them as the device needs",
    "model.feature_size": _SPEC,
    "model.depth_divisor": _SPEC,
    "model.min_depth": _SPEC,
    "model.depth_coefficient": _SPEC,
    "model.width_coefficient": _SPEC,
    "model.blocks_args": _SPEC,
    "model.gn_groups": "BatchNorm is what every published network has",
    "model.local_pooling": "it stops the reference code with an error; the head pools over the whole map",
    "model.headbias": "no recipe sets it; the classifier's bias starts at 0",
    "model.conv_dropout": "no recipe sets it, and the reference code makes a new layer of it at each call",
    "train.sched": "each ramp has its own two ends; set start and end alike to keep it still: "
    "progressive.randaug_magnitude.start",
    "train.split": _SPLITS,
    "eval.split": _SPLITS,
    "data.ds_name": "the data set goes by --dataset_cfg, or data.source and data.tfds_name",
    "data.splits": f"sizes come from the data, and {_SPLITS}",
    "data.cache": "records are not kept in memory; data.shuffle_buffer says how many are held to shuffle",
    "data.try_gcs": "give --data_dir, which may be a bucket, where the data is prepared",
    "data.resize": _UNUSED,
    "data.tfds_split": _UNUSED,
    "runtime.use_async_checkpointing": _UNUSED,
    "runtime.skip_host_call": "there is no host call; summaries are written every runtime.log_every steps",
    "runtime.mixed_precision": "name the type: precision.policy=mixed_bfloat16 (TPU), mixed_float16 (GPU)",
    "runtime.keep_checkpoint_every_n_hours": "the best checkpoint and runtime.keep_checkpoint_max recent ones are kept",
    "runtime.strategy": "devices go by --strategy",
}
"""Settings that are not taken over, and why."""


def translate(changes: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Replaces the reference code's names by those of this package.

    Args:
        changes: dotted settings and their values, as ``parse_overrides`` gives them.
        context: of the configuration that they will change.

    Raises:
        ConfigError: for a setting that is not taken over; the message says why, and what to do.
    """
    result: dict[str, Any] = {}
    for key, value in changes.items():
        dropped = next((name for name in DROPPED if key == name or key.startswith(f"{name}.")), None)
        if dropped:
            raise ConfigError(f"The reference code's {key} is not a setting here: {DROPPED[dropped]}.")
        if key in CONVERTED:
            result.update(CONVERTED[key](value, context))
        else:
            result[RENAMED.get(key, key)] = value
    return result
