"""Checks of data settings that depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnetv2_keras.config.data_settings import DataConfig


def check_cache(data: DataConfig) -> None:
    """Raises ``ValueError`` if ``cache`` demands small copies of images that cannot have any."""
    if data.cache == "disk" and not data.has_copies:
        service = " with data.service" if data.service else ""
        raise ValueError(
            "data.cache is disk, but only images in class folders and lists have small copies, and only with "
            f"pipeline=clean and without data.service; here the source is {data.source} and the pipeline "
            f"{data.pipeline}{service}. Set data.cache to auto or none"
        )


def check_division(data: DataConfig, *, default_holdout: float) -> None:
    """Raises ``ValueError`` if the settings that divide the images do not fit together."""
    given = [name for name in ("group_by", "folds", "fold") if getattr(data, name) is not None]
    if given and data.source not in ("folder", "csv"):
        raise ValueError(
            f"data.{given[0]} is {getattr(data, given[0])}, but only images in class folders and "
            f"lists can be divided, and data.source is {data.source}; set data.{given[0]} to None, or use the "
            "source folder or csv"
        )
    if (data.folds is None) != (data.fold is None):
        raise ValueError(
            f"data.folds is {data.folds} and data.fold is {data.fold}, but one needs the other; write "
            f"data.folds={data.folds or 5},data.fold={data.fold or 0} to evaluate on that fold and train on the "
            "others, and start a run for each fold"
        )
    if data.folds is not None and data.fold is not None and data.fold >= data.folds:
        raise ValueError(
            f"data.fold is {data.fold}, but the folds of data.folds={data.folds} are 0 to {data.folds - 1}"
        )
    if data.folds is not None and data.holdout != default_holdout:
        raise ValueError(
            f"data.holdout={data.holdout:g} and data.folds={data.folds} both choose the evaluation images; leave "
            f"out data.holdout, because a fold is a share of 1/{data.folds}"
        )
