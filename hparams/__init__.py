"""Recipes: one module per data set, each with a function ``get_config(model_name) -> Config``.

A recipe for your own images has ``get_config(model_name, facts)`` instead, where ``facts`` are the number and the size
of the images and the weights to start from, and ``model_name`` may be None.

The docstring of a recipe gives its source, command, hardware, and result or "not measured". To add a recipe, add a
module here; ``--dataset_cfg`` accepts its name in upper or lower case.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Callable

from effnetv2_keras.architecture.variants import DEFAULT_MODEL
from effnetv2_keras.config import USUAL, Config, Facts
from effnetv2_keras.config.overrides import nearest
from effnetv2_keras.errors import ConfigError


def names() -> tuple[str, ...]:
    """Returns the names of all recipes, sorted."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("base", "original"))
    )


def _has_original(name: str) -> bool:
    return hasattr(importlib.import_module(f"{__name__}.{name}"), "ORIGINAL")


def load(
    dataset_cfg: str,
    model_name: str | None = None,
    recipe: str = "paper",
    find_facts: Callable[[Config], Facts] | None = None,
) -> Config:
    """Returns the configuration of a recipe for a model.

    Args:
        dataset_cfg: name of a recipe, in upper or lower case.
        model_name: a key of ``effnetv2_keras.architecture.variants.MODELS``; None lets a recipe for your own images
            choose, and is ``variants.DEFAULT_MODEL`` for the others.
        recipe: ``"paper"``, or ``"original"`` for the settings of the reference code where they differ from the
            paper's.
        find_facts: returns the facts about the images, on which the recipes for your own images depend; it receives
            the settings for images of a usual number and size. None uses these settings.

    Raises:
        ConfigError: if the data set is unknown (the message suggests the nearest one), or ``recipe`` is unknown or not
            available for the data set.
        ValueError: if the model is unknown; the message suggests the nearest one.
    """
    known = {name.lower(): name for name in names()}
    if dataset_cfg.lower() not in known:
        raise ConfigError(
            f"Unknown --dataset_cfg={dataset_cfg}; did you mean {nearest(dataset_cfg.lower(), known)!r}? "
            f"Known recipes: {', '.join(names())}."
        )
    module = importlib.import_module(f"{__name__}.{known[dataset_cfg.lower()]}")
    config: Config
    if "facts" in inspect.signature(module.get_config).parameters:
        # The data settings, by which the facts are found, do not depend on the weights.
        facts = find_facts(module.get_config(model_name, Facts(weights=""))) if find_facts else USUAL
        config = module.get_config(model_name, facts)
    else:
        config = module.get_config(model_name or DEFAULT_MODEL)
    if recipe == "paper":
        return config
    if recipe != "original":
        raise ConfigError(f"Unknown recipe={recipe}; use paper or original.")
    if not hasattr(module, "ORIGINAL"):
        raise ConfigError(
            f"recipe=original is not available for {known[dataset_cfg.lower()]}, whose settings are this package's "
            f"own. Use recipe=paper; recipe=original is for {', '.join(filter(_has_original, names()))}."
        )
    original: Config = module.ORIGINAL(config)
    return original
