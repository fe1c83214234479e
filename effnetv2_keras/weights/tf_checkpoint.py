"""Reads TensorFlow checkpoints: name-based ones of the reference code, object-based ones of this package.

The reference code (google/automl, ``efficientnetv2/effnetv2_model.py`` and ``utils.py``; for V1 tensorflow/tpu,
``models/official/efficientnet``) numbers the blocks of all stages consecutively. Its layers have Keras' default names:
in ``efficientnetv2-b0/blocks_5``, ``conv2d`` is the first convolution, ``conv2d_1`` the second, and
``tpu_batch_normalization_1`` the second BatchNorm, regardless of their function. In addition to ``<name>`` there are
its moving average ``<name>/ExponentialMovingAverage`` and the optimizer slots ``<name>/RMSProp`` and
``<name>/RMSProp_1``.
"""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from effnetv2_keras.basics.small_files import read_literally
from effnetv2_keras.weights import positions, sizes
from effnetv2_keras.weights.layout import Shape, WeightsFile, conv_parts
from effnetv2_keras.weights.report import WeightsError

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_EMA = "/ExponentialMovingAverage"
_NAME = re.compile(
    r"(?:.*/)?(?:(stem|head)(?:_1)?|blocks_(\d+))/"
    r"(conv2d|depthwise_conv2d|dense|(?:tpu_)?batch_normalization|se/conv2d)(?:_(\d+))?/(\w+)"
)
_MEMBERS = ("*.index", "*.data-?????-of-?????", "checkpoint")


def checkpoint_prefix(path: pathlib.Path) -> str | None:
    """Returns the prefix of the checkpoint at a path, or None if there is none.

    The path is a prefix or a folder. Of a folder with checkpoints the latest one is used; of the folder of a run the
    best one, or the latest one if the run has not been evaluated yet.
    """
    if path.name and path.with_name(f"{path.name}.index").is_file():  # "." has no name
        return str(path)
    for folder in (path, path / "best", path / "checkpoints"):
        if latest := _named_latest(folder):
            return latest
        indices = sorted(folder.glob("*.index"))
        if len(indices) == 1:
            return str(indices[0].with_suffix(""))
    return None


def _named_latest(folder: pathlib.Path) -> str | None:
    """Returns the prefix that the file ``checkpoint`` of a folder names, or None if there is no such checkpoint.

    ``tf.train.latest_checkpoint`` would take the path for a pattern.
    """
    state = tf.train.get_checkpoint_state(str(folder)) if (folder / "checkpoint").is_file() else None
    if state is None:
        return None
    named = pathlib.Path(state.model_checkpoint_path)
    for prefix in (named, folder / named.name):  # the second if the folder was moved
        if prefix.with_name(f"{prefix.name}.index").is_file():
            return str(prefix)
    return None


def read_checkpoint(prefix: str, shapes: Mapping[str, Shape], *, prefer_ema: bool) -> WeightsFile:
    """Reads a checkpoint; with ``prefer_ema``, reads the moving averages of the weights if it has them.

    For ``shapes`` see ``formats.read``.
    """
    weights = {}
    with read_literally(prefix) as readable:
        reader = tf.train.load_checkpoint(readable)
        stored = reader.get_variable_to_shape_map()
        names = sorted(stored)
        if _OBJECT_GRAPH in names:
            kind = "checkpoint of this package"
            table = positions.checkpoint_table(names, [*shapes], prefer_ema=prefer_ema)
        else:
            kind, table = "checkpoint of the reference code", _reference_table(names, prefer_ema=prefer_ema)
        for name, canonical in table.items():
            shape = tuple(stored[name])
            needed = sizes.is_needed(canonical, shape, shapes)
            weights[canonical] = reader.get_tensor(name) if needed else sizes.unread(shape)
    skipped = tuple(name for name in names if name not in table and name != _OBJECT_GRAPH)
    return WeightsFile(kind, weights, skipped)


def read_archive(path: pathlib.Path, shapes: Mapping[str, Shape], *, prefer_ema: bool) -> WeightsFile:
    """Reads the checkpoint in a ``.tgz``; the paths of its members are ignored, only their file names are used.

    Raises:
        WeightsError: if it unpacks to much more than the weights of the model, or contains several checkpoints or none.
    """
    with tempfile.TemporaryDirectory() as folder:
        _unpack(path, pathlib.Path(folder), sizes.allowed(path, shapes))
        prefix = checkpoint_prefix(pathlib.Path(folder))
        if prefix is None:
            raise WeightsError(
                f"{path} contains no TensorFlow checkpoint, or several. Extract it and pass the path of a checkpoint."
            )
        return read_checkpoint(prefix, shapes, prefer_ema=prefer_ema)


def _unpack(path: pathlib.Path, folder: pathlib.Path, most: int) -> None:
    """Writes the files of checkpoints in a ``.tgz`` to a folder; raises ``WeightsError`` above ``most`` bytes."""
    written = 0
    with contextlib.ExitStack() as stack:
        bounded: Any = sizes.Bounded(stack.enter_context(gzip.open(path)), path, most)
        archive = stack.enter_context(tarfile.open(fileobj=bounded, mode="r|"))
        for member in archive:
            target = folder / pathlib.PurePosixPath(member.name).name
            source = archive.extractfile(member) if member.isfile() else None
            if source is None or not any(target.match(pattern) for pattern in _MEMBERS):
                continue
            if target.exists():
                raise WeightsError(
                    f"{path} contains several files {target.name}. Extract it and pass the path of one checkpoint."
                )
            written += member.size  # a sparse file is larger than its part of the archive
            if written > most:
                raise sizes.refuse(path, most)
            with target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def _reference_table(names: Iterable[str], *, prefer_ema: bool) -> dict[str, str]:
    """Returns the canonical names of the variables in a checkpoint of the reference code."""
    names = set(names)
    found = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
    blocks: dict[str, set[str]] = {}
    for _, match in found:
        blocks.setdefault(match[2], set()).add(f"{match[3]}_{match[4] or 0}")
    table = {}
    for name, match in found:
        average = name + _EMA
        chosen = average if prefer_ema and average in names else name
        table[chosen] = f"{match[1] or f'block_{match[2]}'}/{_part(match, blocks[match[2]])}/{match[5]}"
    return {name: canonical.replace("head/classifier", "classifier") for name, canonical in table.items()}


def _part(match: re.Match[str], layers: set[str]) -> str:
    """Returns the part that a layer is, from its class, its number, and the other layers in its block."""
    layer, number = match[3], int(match[4] or 0)
    if layer == "dense":
        return "classifier"
    if layer == "se/conv2d":
        return f"squeeze_excite/{('reduce', 'expand')[number]}"
    is_norm = layer.endswith("batch_normalization")
    if match[1]:
        return "norm" if is_norm else "conv"
    convs = sum(name.startswith(("conv2d", "depthwise")) for name in layers)
    parts = conv_parts(convs, depthwise="depthwise_conv2d_0" in layers)
    if layer == "depthwise_conv2d":
        return "depthwise/conv"
    plain = parts if is_norm else tuple(part for part in parts if part != "depthwise")
    return f"{plain[number] if number < len(plain) else f'{layer}_{number}'}/{'norm' if is_norm else 'conv'}"
