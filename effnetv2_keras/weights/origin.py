"""Finds out which of timm's networks a file is from. Needs no TensorFlow.

timm has two families with the same names and shapes. ``tf_efficientnet_*`` and ``tf_efficientnetv2_*`` compute what
these networks do. ``efficientnet_b0`` and others pad images symmetrically and have the BatchNorm epsilon 1e-5
(huggingface/pytorch-image-models, ``timm/models/efficientnet.py``), so the same weights give other logits.
"""

from __future__ import annotations

import json
import pathlib
import re

from effnetv2_keras.weights.report import WeightsError

_UNKNOWN = (
    "Nothing says which of timm's networks the file is from. Only the weights of tf_efficientnet_* and "
    "tf_efficientnetv2_* give the same logits here. Those of efficientnet_b0 and others have the same names and "
    "shapes, but their networks pad images differently and have another BatchNorm epsilon."
)
_NAME = re.compile(r"(?:tf_|gc_)?efficientnet(?:v2)?_\w+")
_HUB = re.compile(r"models--.+?--(.+)|([a-z0-9_]+)\.[a-z0-9_]+")
"""Folders of the Hugging Face hub: ``models--timm--NAME.TAG`` in its cache, ``NAME.TAG`` in a copy."""
_HUB_DEPTH = 3
"""Number of folders above a file that may have the name: the cache has ``models--timm--NAME/snapshots/HASH/FILE``."""


def warnings_of(path: pathlib.Path, arch: str | None = None) -> tuple[str, ...]:
    """Returns reasons to doubt that a file is of a network that computes the same as the one of this package.

    Args:
        path: a file of weights of timm.
        arch: timm's name of the network in the file, if it contains one.

    Raises:
        WeightsError: if the file contains another name than ``tf_efficientnet...``, or ``config.json`` beside it, its
            own name, or the folder of its hub does.
    """
    known = _told(path, arch)
    if known is None:
        return (_UNKNOWN,)
    name, place = known
    if not name.startswith("tf_"):
        raise WeightsError(
            f"{path} is of timm's {name}, as {place} says. That network pads images differently and has another "
            "BatchNorm epsilon, so its weights would give other logits here; they were not loaded. Use a file of one "
            f"of timm's tf_efficientnet_* or tf_efficientnetv2_* networks. If this file is one, correct {place}."
        )
    return ()


def _told(path: pathlib.Path, arch: str | None) -> tuple[str, str] | None:
    """Returns timm's name of the network and where it was found; None if nothing says it."""
    for text, place in (
        (_architecture(path.parent / "config.json"), "config.json beside it"),
        (arch, "the entry 'arch' in it"),
        (path.name, "its file name"),
        *((_hub_name(folder.name), f"the folder {folder.name}") for folder in list(path.parents)[:_HUB_DEPTH]),
    ):
        if text and (match := _NAME.match(text.lower())):
            return match[0], place
    return None


def _architecture(path: pathlib.Path) -> str | None:
    """Returns the network that timm's ``config.json`` names; None if there is no such file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = content.get("architecture") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def _hub_name(folder: str) -> str | None:
    match = _HUB.fullmatch(folder)
    return match and (match[1] or match[2])
