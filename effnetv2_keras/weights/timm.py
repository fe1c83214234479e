"""Reads PyTorch weights of timm's ``tf_efficientnet_*`` and ``tf_efficientnetv2_*`` models.

These models have TensorFlow's padding and BatchNorm epsilon; timm's other EfficientNets do not (see ``origin``). The
names are those of huggingface/pytorch-image-models,
``timm/models/efficientnet.py`` and ``_efficientnet_blocks.py``. In timm, kernels are ``[out, in, height, width]``,
depthwise kernels ``[channels, 1, height, width]``, and dense kernels ``[out, in]``.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Callable

from effnetv2_keras.basics.packages import need
from effnetv2_keras.weights import origin, sizes
from effnetv2_keras.weights.layout import Array, Shape, WeightsFile, conv_parts
from effnetv2_keras.weights.report import WeightsError

_ENDS = {
    "conv_stem": "stem/conv",
    "bn1": "stem/norm",
    "conv_head": "head/conv",
    "bn2": "head/norm",
    "classifier": "classifier",
}
_CONV_ORDER = ("conv", "conv_exp", "conv_dw", "conv_pw", "conv_pwl")
"""A block's convolutions in order of application. If there is a ``conv_pwl``, ``conv_pw`` comes first instead."""
_SQUEEZE = {"se.conv_reduce": "squeeze_excite/reduce", "se.conv_expand": "squeeze_excite/expand"}
_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."
"""Prefix that PyTorch's data-parallel wrapper adds to every name."""


def read_safetensors(path: pathlib.Path, shapes: Mapping[str, Shape]) -> WeightsFile:
    """Reads a ``.safetensors`` file; for ``shapes`` see ``formats.read``.

    Raises:
        PackageMissing: if the package safetensors is not installed.
        ValueError: if the file is damaged.
        WeightsError: if the file is of a network of timm with another padding.
    """
    safetensors = need("safetensors", f"The file {path}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            file_of_timm = _translate(stored, file.get_tensor, shapes, "safetensors of timm")
    except safetensors.SafetensorError as error:
        raise ValueError(error) from error
    return _checked(file_of_timm, path)


def read_pickle(path: pathlib.Path, shapes: Mapping[str, Shape], *, prefer_ema: bool) -> WeightsFile:
    """Reads a ``.pth`` file with PyTorch, without running code that the file may contain.

    For ``shapes`` see ``formats.read``.

    Raises:
        WeightsError: if PyTorch is not installed, the file contains more than plain weights, or it is of a network of
            timm with another padding.
    """
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            f"{path} is a PyTorch file, but PyTorch is not installed. Run: pip install torch. Or use a .safetensors "
            "file of the same model, which needs no PyTorch."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{path} is not a file of plain PyTorch weights. Other contents could run code and are not loaded. Save "
            "the model's state_dict, or use a .safetensors file."
        ) from error
    arch = content.get("arch") if isinstance(content, Mapping) else None  # timm's training script stores it
    state = _state(content, prefer_ema=prefer_ema)
    stored = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
    file_of_timm = _translate(stored, lambda name: state[name].float().numpy(), shapes, "PyTorch file of timm")
    return _checked(file_of_timm, path, arch if isinstance(arch, str) else None)


def _checked(file: WeightsFile, path: pathlib.Path, arch: str | None = None) -> WeightsFile:
    """Returns the file with the warnings of ``origin``; a file without weights of timm is not checked."""
    if not file.weights:
        return file
    return dataclasses.replace(file, warnings=origin.warnings_of(path, arch), facts=origin.facts_of(path))


def _state(content: Any, *, prefer_ema: bool) -> Mapping[str, Any]:
    """Returns the weights without the dictionary that a training script may have put around them."""
    for key in (("state_dict_ema",) if prefer_ema else ()) + _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content if isinstance(content, Mapping) else {}


def _translate(
    stored: Mapping[str, Shape],
    read: Callable[[str], Array],
    shapes: Mapping[str, Shape],
    kind: str,
) -> WeightsFile:
    """Returns the weights with canonical names and in TensorFlow's layout.

    Args:
        stored: shapes of the weights in the file, by their names there.
        read: returns a weight of the file from its name there.
        shapes: see ``formats.read``.
        kind: description of the file format.
    """
    layers = {name.removeprefix(_PREFIX).rpartition(".")[0] for name in stored}
    names = {**_ENDS, **_block_names(layers)}
    weights, skipped = {}, []
    for name, shape in stored.items():
        layer, _, variable = name.removeprefix(_PREFIX).rpartition(".")
        if layer not in names or variable not in _KINDS:
            skipped.append(name)
            continue
        canonical = _canonical(names[layer], variable)
        stand_in = _in_tensorflow(canonical, sizes.unread(shape))
        needed = sizes.is_needed(canonical, stand_in.shape, shapes)
        weights[canonical] = _in_tensorflow(canonical, read(name)) if needed else stand_in
    return WeightsFile(kind, weights, tuple(skipped))


def _canonical(layer: str, variable: str) -> str:
    if layer.endswith("/norm"):
        return f"{layer}/{_KINDS[variable]}"
    if variable == "bias":
        return f"{layer}/bias"
    return f"{layer}/depthwise_kernel" if layer.endswith("depthwise/conv") else f"{layer}/kernel"


def _in_tensorflow(name: str, value: Array) -> Array:
    """Returns a weight of PyTorch in TensorFlow's layout."""
    if name.endswith("/depthwise_kernel") and value.ndim == 4:
        return value.transpose(2, 3, 0, 1)
    if name.endswith("kernel"):
        return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return value


def _block_names(layers: set[str]) -> dict[str, str]:
    """Returns the canonical names of the layers of all blocks; timm numbers blocks within their stage."""
    blocks: dict[tuple[int, int], set[str]] = {}
    for layer in layers:
        if match := _BLOCK.fullmatch(layer):
            blocks.setdefault((int(match[1]), int(match[2])), set()).add(match[3])
    names = {}
    for index, (stage, number) in enumerate(sorted(blocks)):
        found = blocks[stage, number]
        for layer, name in {**_conv_names(found), **_SQUEEZE}.items():
            names[f"blocks.{stage}.{number}.{layer}"] = f"block_{index}/{name}"
    return names


def _conv_names(layers: set[str]) -> dict[str, str]:
    order = [conv for conv in _CONV_ORDER if conv in layers]
    if "conv_pw" in order and "conv_pwl" in order:
        order.remove("conv_pw")
        order.insert(0, "conv_pw")
    parts = conv_parts(len(order), depthwise="conv_dw" in layers)
    return {
        name: f"{part}/{kind}"
        for number, (conv, part) in enumerate(zip(order, parts), start=1)
        for name, kind in ((conv, "conv"), (f"bn{number}", "norm"))
    }
