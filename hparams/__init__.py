"""Recipes: one module per data set, each with ``get_config(model_name) -> Config``.

A recipe's docstring is a lab note: source, hardware, command, result or "not measured". To add one, add a module
here; its name is what ``--dataset_cfg`` takes, in any case.
"""

from __future__ import annotations

import importlib
import pkgutil

from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.overrides import nearest


def names() -> tuple[str, ...]:
    """Every recipe's name, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))


def load(dataset_cfg: str, model_name: str) -> Config:
    """Builds the configuration of a recipe for a model.

    Args:
        dataset_cfg: a recipe's name, in any case.
        model_name: a key of ``effnetv2_keras.specs.MODELS``.

    Raises:
        ConfigError: for an unknown recipe; the message suggests the nearest one.
        ValueError: for an unknown model, likewise.
    """
    known = {name.lower(): name for name in names()}
    if dataset_cfg.lower() not in known:
        raise ConfigError(
            f"Unknown --dataset_cfg={dataset_cfg}; did you mean {nearest(dataset_cfg.lower(), known)!r}? "
            f"Known recipes: {', '.join(names())}."
        )
    module = importlib.import_module(f"{__name__}.{known[dataset_cfg.lower()]}")
    return module.get_config(model_name)
