"""Canonical names for files that identify a weight by its position in the network instead of its name.

``model.save_weights("x.weights.h5")`` and ``.keras`` archives number the layers of each class. Object-based checkpoints
number the layers that have weights, and the elements of every list. The functions return tables from the names in the
file to canonical names.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

from effnetv2_keras.architecture.specs import BlockKind
from effnetv2_keras.models.keras_compat import as_in_keras_2
from effnetv2_keras.weights.layout import NORM_KINDS, PREPROCESSING, conv_parts

_CLASSES: dict[str, BlockKind] = {"fused_mb_conv": "fused_mbconv", "mb_conv": "mbconv"}
_HDF5 = re.compile(r"(.*/)?layers/(conv_norm|fused_mb_conv|mb_conv|dense)(?:_(\d+))?/(?:(.+)/)?vars/(\d+)")
_APPLICATION = re.compile(
    r"(.*/)?layers/(conv2d|depthwise_conv2d|batch_normalization|dense|normalization)(?:_(\d+))?/vars/(\d+)"
)
_PARTS = ("expand/", "depthwise/", "squeeze_excite/reduce", "squeeze_excite/expand", "project/")
"""The parts of a block, in the order of application."""
_CLASS_OF_END = {"norm": "batch_normalization", "depthwise/conv": "depthwise_conv2d", "classifier": "dense"}
_HDF5_CONV = re.compile(r"branch/conv_norm(?:_(\d+))?/(conv|norm)")
_GRAPH = re.compile(
    r"(?:(\w+)/)?(?:layer_with_weights-|_operations/)(\d+)/([\w/]+)/\.ATTRIBUTES/VARIABLE_VALUE"  # Keras 2, Keras 3
)
_IN_BLOCK = re.compile("(branch|expand|depthwise|project|squeeze_excite)/")
_GRAPH_CONV = re.compile(r"branch/(\d+)/((?:conv|norm)/\w+)")


def hdf5_table(paths: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Returns the canonical names of the datasets of one of this package's models in an HDF5 file with numbered layers.

    Args:
        paths: paths of all datasets in the file. Those of ``_largest_model`` are used.
        names: canonical names of the weights of the model that they are for. The file does not contain the order of
            fused and other blocks. If it has as many blocks of each kind as the model, the order is that of the model.
            Otherwise fused blocks come first, as in all named variants.
    """
    blocks = sorted({int(name[6:].split("/")[0]) for name in names if name.startswith("block_")})
    kinds: list[BlockKind] = [
        "mbconv" if f"block_{block}/depthwise/conv/depthwise_kernel" in names else "fused_mbconv" for block in blocks
    ]
    found = _largest_model(_HDF5, paths)
    roles = _hdf5_roles({(match[2], int(match[3] or 0)) for match in found.values()}, kinds)
    convs: dict[str, set[int]] = {}
    for match in found.values():
        if conv := _HDF5_CONV.fullmatch(match[4] or ""):
            convs.setdefault(roles[match[2], int(match[3] or 0)], set()).add(int(conv[1] or 0))
    table = {}
    for path, match in found.items():
        role, part, index = roles[match[2], int(match[3] or 0)], match[4] or "", int(match[5])
        if conv := _HDF5_CONV.fullmatch(part):
            order = conv_parts(len(convs[role]), depthwise=match[2] == "mb_conv")
            part = f"{order[int(conv[1] or 0)]}/{conv[2]}" if order else part
        part = part.replace("branch/", "")
        table[path] = "/".join(filter(None, (role, part, _variable(part, index))))
    return table


def _hdf5_roles(layers: set[tuple[str, int]], kinds: Sequence[BlockKind]) -> dict[tuple[str, int], str]:
    blocks = sorted(layer for layer in layers if layer[0] in _CLASSES)
    if sorted(kinds) == sorted(_CLASSES[name] for name, _ in blocks):
        rest = {kind: iter([block for block in blocks if _CLASSES[block[0]] == kind]) for kind in kinds}
        blocks = [next(rest[kind]) for kind in kinds]
    ends = {("conv_norm", 0): "stem", ("conv_norm", 1): "head", ("dense", 0): "classifier"}
    others = {layer: "_".join(map(str, layer)) for layer in layers}
    return {**others, **ends, **{block: f"block_{index}" for index, block in enumerate(blocks)}}


def applications_table(paths: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Returns the canonical names of the datasets of ``tf.keras.applications`` in an HDF5 file with numbered layers.

    The layer classes are Keras' own, so the file does not say where a block starts. The layers of each class are
    assigned in the order in which the model applies its layers of that class. Surplus layers of a class, such as a
    BatchNorm that a user added on top, get no name.

    Args:
        paths: paths of all datasets in the file. Those of ``_largest_model`` are used.
        names: canonical names of the weights of the model that they are for.
    """
    layers = {**_layers_by_class(names), "normalization": ["preprocessing"]}
    table = {}
    for path, match in _largest_model(_APPLICATION, paths).items():
        known, number = layers.get(match[2], []), int(match[3] or 0)
        if number < len(known):
            table[path] = f"{known[number]}/{_variable(known[number], int(match[4]))}"
    return table


def _largest_model(pattern: re.Pattern[str], paths: Iterable[str]) -> dict[str, re.Match[str]]:
    """Returns the matching datasets of the model with the most of them; other models in the file are ignored.

    A Dense layer is taken for the classifier if it is the only one. If there are several, none of them is returned,
    because the classifier is not known.

    Args:
        pattern: regular expression of a path. Its first groups are the path of the model, the class of the layer and
            the number of the layer.
        paths: paths of all datasets in the file.
    """
    found = {path: match for path in paths if (match := pattern.fullmatch(path))}
    sizes = collections.Counter(match[1] for match in found.values())
    largest = max(sizes, key=sizes.__getitem__, default=None)
    found = {path: match for path, match in found.items() if match[1] == largest}
    dense = {match[3] for match in found.values() if match[2] == "dense"}
    return {path: match for path, match in found.items() if match[2] != "dense" or len(dense) == 1}


def _layers_by_class(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the names of Keras' layers, such as ``"block_0/expand/conv"``, by class, in the order of application."""
    by_class = collections.defaultdict(list)
    for layer in _layers_in_order(names):
        by_class[next((kind for end, kind in _CLASS_OF_END.items() if layer.endswith(end)), "conv2d")].append(layer)
    return by_class


def _layers_in_order(names: Sequence[str]) -> list[str]:
    """Returns the names of Keras' layers with weights in the order of application, without the preprocessing."""
    names = [name for name in names if not name.startswith(PREPROCESSING)]
    roles = list(dict.fromkeys(name.split("/")[0] for name in names))

    def place(layer: str) -> tuple[int, int, str]:
        role, _, part = layer.partition("/")
        rank = next((rank for rank, start in enumerate(_PARTS) if part.startswith(start)), 0)
        return roles.index(role), rank, part  # of a part, "conv" comes before "norm"

    return sorted({name.rpartition("/")[0] for name in names}, key=place)


def _variable(layer: str, index: int) -> str:
    """Returns the name of a layer's variable from its index in the layer."""
    if layer.endswith("norm"):
        return NORM_KINDS[index]
    if layer == "preprocessing":
        return ("mean", "variance", "count")[index]
    return "depthwise_kernel" if layer.endswith("depthwise/conv") else ("kernel", "bias")[index]


def checkpoint_table(keys: Iterable[str], names: Sequence[str], *, prefer_ema: bool) -> dict[str, str]:
    """Returns the canonical names of the variables in an object-based checkpoint of a model, or of a run.

    Args:
        keys: keys of all variables in the checkpoint.
        names: canonical names of the weights of the model that they are for. Only for networks of Keras' layers, whose
            layers are assigned in the order of application.
        prefer_ema: whether to use the averaged model of a run if there is one.
    """
    found = [(key, match) for key in keys if (match := _GRAPH.fullmatch(key))]
    roots = {match[1] for _, match in found}
    preferred = ("ema_model", "model") if prefer_ema else ("model",)
    root = next((root for root in preferred if root in roots), next(iter(sorted(roots, key=str)), None))
    layers: dict[int, dict[str, str]] = {}
    for key, match in found:
        if match[1] == root:
            layers.setdefault(int(match[2]), {})[as_in_keras_2(match[3])] = key
    if not any(_IN_BLOCK.match(part) for parts in layers.values() for part in parts):
        return _flat_table([parts for _, parts in sorted(layers.items())], names)
    table, blocks = {}, 0
    for number, parts in sorted(layers.items()):
        if any(map(_IN_BLOCK.match, parts)):
            role, blocks = f"block_{blocks}", blocks + 1
        else:
            role = "classifier" if "kernel" in parts else "stem" if number == min(layers) else "head"
        table.update({key: f"{role}/{part}" for part, key in _named_branch(parts).items()})
    return table


def _flat_table(layers: Sequence[dict[str, str]], names: Sequence[str]) -> dict[str, str]:
    """Returns the canonical names of the variables of a network of Keras' layers, which are numbered in order."""
    first, others = (layers[0], layers[1:]) if layers and "count" in layers[0] else ({}, layers)
    table = {key: f"preprocessing/{part.removeprefix('adapt_')}" for part, key in first.items()}  # ``Normalization``
    for place, parts in zip(_layers_in_order(names), others):
        table.update({key: as_in_keras_2(f"{place}/{part}") for part, key in parts.items()})
    return table


def _named_branch(parts: dict[str, str]) -> dict[str, str]:
    """Replaces the numbers of a block's parts by their names, as in ``depthwise/conv/depthwise_kernel``."""
    numbers = sorted({int(match[1]) for part in parts if (match := _GRAPH_CONV.fullmatch(part))})
    names = conv_parts(len(numbers), depthwise=any(part.endswith("/depthwise_kernel") for part in parts))
    named = {}
    for part, key in parts.items():
        match = _GRAPH_CONV.fullmatch(part)
        conv = f"{names[numbers.index(int(match[1]))]}/{match[2]}" if match and names else part
        named[re.sub(r"branch/\d+/", "squeeze_excite/", conv)] = key
    return named
