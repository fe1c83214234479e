"""Setting names from the reference code (google/automl, ``efficientnetv2/hparams.py``), and their equivalents here.

Names that are the same in both need no entry. The others are renamed (``RENAMED``), converted (``CONVERTED``), or
rejected with the reason and what to use instead (``DROPPED``). Flags that only the reference code has are in ``FLAGS``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple

from effnetv2_keras.basics.exact import exact
from effnetv2_keras.errors import ConfigError


class Context(NamedTuple):
    """The parts of a configuration on which the meaning of a setting depends.

    Attributes:
        eval_size: side of the evaluation images, pixels.
        is_clean: whether ``data.augment_arithmetic`` is ``"clean"``, not that of the reference code.
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
"""Settings with the same meaning and another name: ``{reference code: here}``."""


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}={value!r} must be a number.") from error


def _stages(value: Any, context: Context) -> dict[str, Any]:
    """Returns the number of stages. 0 in the reference code means training at one size, which is one stage here."""
    return {"progressive.stages": max(1, int(_number("train.stages", value)))}


def _train_size(value: Any, context: Context) -> dict[str, Any]:
    """Returns the training size; a value up to 16 is a ratio to the evaluation size, rounded down to 16 px."""
    size = _number("train.isize", value)
    return {"progressive.image_size.end": int(context.eval_size * exact(size)) // 16 * 16 if size <= 16 else int(size)}


def _dropout(value: Any, context: Context) -> dict[str, Any]:
    """Returns a constant dropout rate for the whole run."""
    return {"progressive.dropout_rate.start": value, "progressive.dropout_rate.end": value}


def _augmentation(value: Any, context: Context) -> dict[str, Any]:
    """Splits ``effnetv1_NAME``, ``ft``, ``ft_NAME`` or ``NAME`` into a pipeline and an augmentation."""
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
    """Returns ``train.sync_bn``; raises ``ConfigError`` for ``gn``, which is GroupNorm.

    ``tpu_bn`` shares statistics over replicas (in the reference code, over groups of up to 8). All other names mean
    BatchNorm with the statistics of each replica.
    """
    if value == "gn":
        raise ConfigError(
            "model.bn_type=gn is GroupNorm, which is not supported, because every published network has BatchNorm. "
            "Leave model.bn_type out."
        )
    return {"train.sync_bn": value == "tpu_bn"}


CONVERTED: dict[str, Callable[[Any, Context], dict[str, Any]]] = {
    "train.stages": _stages,
    "train.isize": _train_size,
    "model.dropout_rate": _dropout,
    "model.bn_type": _normalization,
    "data.augname": _augmentation,
}
"""Settings whose values need a conversion: ``(value, context) -> settings``."""

_SPEC = (
    "it changes the network; make a ModelSpec with dataclasses.replace(variants.get_spec(NAME), ...), write its "
    "to_json() to a file, and use --model_name=FILE.json"
)
_SPLITS = "name splits as in TensorFlow Datasets: data.train_split=train[2%:],data.eval_split=train[:2%]"
_UNUSED = "the reference code never reads it; leave it out"

DROPPED = {
    "model.data_format": "images are channels_last, and TensorFlow chooses the layout for the device; leave it out",
    "model.feature_size": _SPEC,
    "model.depth_divisor": _SPEC,
    "model.min_depth": _SPEC,
    "model.depth_coefficient": _SPEC,
    "model.width_coefficient": _SPEC,
    "model.blocks_args": _SPEC,
    "model.gn_groups": "GroupNorm is not supported, because every published network has BatchNorm; leave it out",
    "model.local_pooling": "the reference code fails with it, and the head pools over the whole map; leave it out",
    "model.headbias": "no recipe sets it, and the bias of the classifier starts at 0; leave it out",
    "model.conv_dropout": "no recipe sets it, and the reference code makes a new layer at each call; leave it out",
    "train.sched": "each ramp has its own start and end; set both to the same value for a constant, such as "
    "progressive.randaug_magnitude.start and .end",
    "train.split": _SPLITS,
    "eval.split": _SPLITS,
    "data.ds_name": "choose the data set with --dataset_cfg, or with data.source and data.tfds_name",
    "data.splits": f"sizes come from the data; {_SPLITS}",
    "data.try_gcs": "pass the folder or bucket of the prepared data as --data_dir",
    "data.resize": _UNUSED,
    "data.tfds_split": _UNUSED,
    "runtime.use_async_checkpointing": _UNUSED,
    "runtime.skip_host_call": "there is no host call; runtime.log_every sets the steps between two summaries",
    "runtime.mixed_precision": "choose the type instead: precision.policy=mixed_bfloat16 (TPU) or mixed_float16 (GPU)",
    "runtime.keep_checkpoint_every_n_hours": "set runtime.keep_checkpoint_max; the best checkpoint is kept as well",
    "runtime.strategy": "choose the devices with a flag: --strategy=mirrored for gpus, --strategy=tpu for tpu; for "
    "one device, leave it out",
}
"""Settings without an equivalent here: the reason, and what to use instead."""


FLAGS = {
    "archive_ckpt": "the best checkpoint is always kept, in the folder best of the run; leave it out",
    "eval_name": "results of training are in metrics.csv of the run, and --mode=eval writes to --output_dir",
    "sweeps": "run one command for each combination of settings, each with its own --model_dir",
    "tpu_job_name": "--tpu alone names the TPU; leave it out",
    "export_to_tpu": "a SavedModel of --mode=export runs on every device of TensorFlow; leave it out",
    "image_path": "list the files after --mode=predict, or give --images",
    "batch_size": "set train.batch_size or eval.batch_size in --hparam_str; --mode=benchmark has --batch_sizes",
    "mixed_precision": "set precision.policy=mixed_bfloat16 (TPU) or mixed_float16 (GPU) in --hparam_str",
    "trace_file": "--mode=benchmark measures latency and memory, and writes no trace; leave it out",
    "debug": "use the Python API after tf.config.run_functions_eagerly(True); leave it out",
}
"""Flags of the reference code's ``main.py`` and ``infer.py`` without an equivalent here, as in ``DROPPED``."""


def check_flags(arguments: Iterable[str]) -> None:
    """Raises ``ConfigError`` if the arguments of a command line contain one of ``FLAGS``, in any spelling of absl."""
    for argument in itertools.takewhile(lambda text: text != "--", arguments):
        match = re.fullmatch(r"--?(?:no)?(\w+)(?:=.*)?", argument, re.DOTALL)
        if match and match[1] in FLAGS:
            raise ConfigError(f"The reference code's --{match[1]} is not a flag here: {FLAGS[match[1]]}.")


def translate(changes: Mapping[str, Any], context: Context | None = None) -> dict[str, Any]:
    """Returns overrides with the setting names of the reference code replaced by those of this package.

    Args:
        changes: values by dotted setting name, from ``parse_overrides``.
        context: context of the configuration with all overrides that need no conversion; only those in ``CONVERTED``
            read it.

    Raises:
        ConfigError: for a setting without an equivalent; the message gives the reason and what to use instead.
    """
    result: dict[str, Any] = {}
    for key, value in changes.items():
        dropped = next((name for name in DROPPED if key == name or key.startswith(f"{name}.")), None)
        if dropped:
            raise ConfigError(f"The reference code's {key} is not a setting here: {DROPPED[dropped]}.")
        if key in CONVERTED and context is not None:
            result.update(CONVERTED[key](value, context))
        else:
            result[RENAMED.get(key, key)] = value
    return result
