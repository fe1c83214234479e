"""This package's models in files that say where a weight stands in the network, not what it is called.

``model.save_weights("x.weights.h5")`` and ``.keras`` archives count layers by class; object-based checkpoints number
the layers that have weights, and the members of every list. Tables map a file's names to canonical ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from effnetv2_keras.keras_version import as_in_keras_2
from effnetv2_keras.specs import BlockKind
from effnetv2_keras.weights.layout import NORM_KINDS, conv_parts

_CLASSES: dict[str, BlockKind] = {"fused_mb_conv": "fused_mbconv", "mb_conv": "mbconv"}
_HDF5 = re.compile(r"layers/(conv_norm|fused_mb_conv|mb_conv|dense)(?:_(\d+))?/(?:(.+)/)?vars/(\d+)")
_HDF5_CONV = re.compile(r"branch/conv_norm(?:_(\d+))?/(conv|norm)")
_GRAPH = re.compile(
    r"(?:(\w+)/)?(?:layer_with_weights-|_operations/)(\d+)/([\w/]+)/\.ATTRIBUTES/VARIABLE_VALUE"  # Keras 2, Keras 3
)
_IN_BLOCK = re.compile("(branch|expand|depthwise|project|squeeze_excite)/")
_GRAPH_CONV = re.compile(r"branch/(\d+)/((?:conv|norm)/\w+)")


def hdf5_table(paths: Iterable[str], kinds: Sequence[BlockKind]) -> dict[str, str]:
    """Names the datasets of an HDF5 file that counts layers by class.

    Args:
        paths: of all datasets.
        kinds: of the blocks of the model that the weights are for. How blocks of different kinds alternate is not in
            the file: where it has as many of each kind as the model, it is as in the model; otherwise, as in all
            named variants, fused blocks come first.
    """
    found = [(path, match) for path in paths if (match := _HDF5.fullmatch(path))]
    roles = _hdf5_roles({(match[1], int(match[2] or 0)) for _, match in found}, kinds)
    convs: dict[str, set[int]] = {}
    for _, match in found:
        if conv := _HDF5_CONV.fullmatch(match[3] or ""):
            convs.setdefault(roles[match[1], int(match[2] or 0)], set()).add(int(conv[1] or 0))
    table = {}
    for path, match in found:
        role, part, index = roles[match[1], int(match[2] or 0)], match[3] or "", int(match[4])
        if conv := _HDF5_CONV.fullmatch(part):
            names = conv_parts(len(convs[role]), depthwise=match[1] == "mb_conv")
            part = f"{names[int(conv[1] or 0)]}/{conv[2]}" if names else part
        part = part.replace("branch/", "")
        kind = NORM_KINDS[index] if part.endswith("norm") else ("kernel", "bias")[index]
        kind = "depthwise_kernel" if part == "depthwise/conv" else kind
        table[path] = "/".join(filter(None, (role, part, kind)))
    return table


def _hdf5_roles(layers: set[tuple[str, int]], kinds: Sequence[BlockKind]) -> dict[tuple[str, int], str]:
    blocks = sorted(layer for layer in layers if layer[0] in _CLASSES)
    if sorted(kinds) == sorted(_CLASSES[name] for name, _ in blocks):
        rest = {kind: iter([block for block in blocks if _CLASSES[block[0]] == kind]) for kind in kinds}
        blocks = [next(rest[kind]) for kind in kinds]
    ends = {("conv_norm", 0): "stem", ("conv_norm", 1): "head", ("dense", 0): "classifier"}
    others = {layer: "_".join(map(str, layer)) for layer in layers}
    return {**others, **ends, **{block: f"block_{index}" for index, block in enumerate(blocks)}}


def checkpoint_table(keys: Iterable[str], *, prefer_ema: bool) -> dict[str, str]:
    """Names the variables of an object-based checkpoint of a model, or of a run of this package.

    Args:
        keys: of all variables.
        prefer_ema: take the averaged model of a run that has one.
    """
    found = [(key, match) for key in keys if (match := _GRAPH.fullmatch(key))]
    roots = {match[1] for _, match in found}
    preferred = ("ema_model", "model") if prefer_ema else ("model",)
    root = next((root for root in preferred if root in roots), next(iter(sorted(roots, key=str)), None))
    layers: dict[int, dict[str, str]] = {}
    for key, match in found:
        if match[1] == root:
            layers.setdefault(int(match[2]), {})[as_in_keras_2(match[3])] = key
    table, blocks = {}, 0
    for number, parts in sorted(layers.items()):
        if any(map(_IN_BLOCK.match, parts)):
            role, blocks = f"block_{blocks}", blocks + 1
        else:
            role = "classifier" if "kernel" in parts else "stem" if number == min(layers) else "head"
        table.update({key: f"{role}/{part}" for part, key in _named_branch(parts).items()})
    return table


def _named_branch(parts: dict[str, str]) -> dict[str, str]:
    """Puts the names of a block's parts, as in ``depthwise/conv/depthwise_kernel``, for their numbers."""
    numbers = sorted({int(match[1]) for part in parts if (match := _GRAPH_CONV.fullmatch(part))})
    names = conv_parts(len(numbers), depthwise=any(part.endswith("/depthwise_kernel") for part in parts))
    named = {}
    for part, key in parts.items():
        match = _GRAPH_CONV.fullmatch(part)
        conv = f"{names[numbers.index(int(match[1]))]}/{match[2]}" if match and names else part
        named[re.sub(r"branch/\d+/", "squeeze_excite/", conv)] = key
    return named
