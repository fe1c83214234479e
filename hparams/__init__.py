"""Recipes: one module per data set, each with ``get_config(model_name) -> Config``.

A recipe's docstring is a lab note: source, hardware, command, result or "not measured". To add one, add a module
here; its name is what ``--dataset_cfg`` takes, in any case.
"""

from __future__ import annotations

import importlib
import pkgutil

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import nearest
from effnetv2_keras.errors import ConfigError


def names() -> tuple[str, ...]:
    """Every recipe's name, sorted."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("base", "original"))
    )


def load(dataset_cfg: str, model_name: str, recipe: str = "paper") -> Config:
    """Builds the configuration of a recipe for a model.

    Args:
        dataset_cfg: a recipe's name, in any case.
        model_name: a key of ``effnetv2_keras.architecture.variants.MODELS``.
        recipe: ``"paper"``, or ``"original"`` for the reference code's settings where the two differ.

    Raises:
        ConfigError: for an unknown data set, the message suggests the nearest one; for another recipe, or one that the
            data set does not have.
        ValueError: for an unknown model, likewise.
    """
    known = {name.lower(): name for name in names()}
    if dataset_cfg.lower() not in known:
        raise ConfigError(
            f"Unknown --dataset_cfg={dataset_cfg}; did you mean {nearest(dataset_cfg.lower(), known)!r}? "
            f"Known recipes: {', '.join(names())}."
        )
    module = importlib.import_module(f"{__name__}.{known[dataset_cfg.lower()]}")
    config: Config = module.get_config(model_name)
    if recipe == "paper":
        return config
    if recipe != "original":
        raise ConfigError(f"Unknown recipe={recipe}; use paper or original.")
    if not hasattr(module, "ORIGINAL"):
        raise ConfigError(
            f"The settings of {known[dataset_cfg.lower()]} are this package's own; recipe=original is for imagenet, "
            "imagenet21k, imagenetFt, cifar10Ft, cifar100Ft, flowersFt, tfflowersFt and carsFt."
        )
    original: Config = module.ORIGINAL(config)
    return original
