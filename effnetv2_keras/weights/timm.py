"""Reads PyTorch weights of timm's ``tf_efficientnet_*`` and ``tf_efficientnetv2_*`` models.

These models have TensorFlow's padding and BatchNorm epsilon. The names are those of huggingface/pytorch-image-models,
``timm/models/efficientnet.py`` and ``_efficientnet_blocks.py``. In timm, kernels are ``[out, in, height, width]``,
depthwise kernels ``[channels, 1, height, width]``, and dense kernels ``[out, in]``.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from safetensors import safe_open

from effnetv2_keras.weights.layout import Array, WeightsFile, conv_parts
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


def read_safetensors(path: pathlib.Path) -> WeightsFile:
    """Reads a ``.safetensors`` file."""
    with safe_open(path, framework="np") as file:
        return _translate({name: file.get_tensor(name) for name in file.keys()}, "safetensors of timm")  # noqa: SIM118


def read_pickle(path: pathlib.Path, *, prefer_ema: bool) -> WeightsFile:
    """Reads a ``.pth`` file with PyTorch, without running code that the file may contain.

    Raises:
        WeightsError: if PyTorch is not installed, or the file contains more than plain weights.
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
    state = _state(content, prefer_ema=prefer_ema)
    return _translate(
        {name: value.float().numpy() for name, value in state.items() if isinstance(value, torch.Tensor)},
        "PyTorch file of timm",
    )


def _state(content: Any, *, prefer_ema: bool) -> Mapping[str, Any]:
    """Returns the weights without the dictionary that a training script may have put around them."""
    for key in (("state_dict_ema",) if prefer_ema else ()) + _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content if isinstance(content, Mapping) else {}


def _translate(state: Mapping[str, Array], kind: str) -> WeightsFile:
    layers = {name.removeprefix(_PREFIX).rpartition(".")[0] for name in state}
    names = {**_ENDS, **_block_names(layers)}
    weights, skipped = {}, []
    for name, value in state.items():
        layer, _, variable = name.removeprefix(_PREFIX).rpartition(".")
        if layer not in names or variable not in _KINDS:
            skipped.append(name)
        elif names[layer].endswith("/norm"):
            weights[f"{names[layer]}/{_KINDS[variable]}"] = value
        elif variable == "bias":
            weights[f"{names[layer]}/bias"] = value
        elif names[layer].endswith("depthwise/conv"):
            weights[f"{names[layer]}/depthwise_kernel"] = value.transpose(2, 3, 0, 1)
        else:
            weights[f"{names[layer]}/kernel"] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return WeightsFile(kind, weights, tuple(skipped))


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
