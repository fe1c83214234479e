"""Types of settings in the syntax of ``--hparam_str``, and the function that declares a setting (no TensorFlow)."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal, Optional

import pydantic

from effnetv2_keras.architecture import specs
from effnetv2_keras.config.overrides import check_regex


def split_bars(value: Any) -> Any:
    """Returns the parts of ``"a|b|c"``, the list syntax of ``--hparam_str``, and a number as a list of one."""
    if isinstance(value, str):
        return [part for part in value.split("|") if part]
    return [value] if isinstance(value, (int, float)) else value


def _check_address(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):\d{1,5}", value):
        raise ValueError(f"{value!r} is not an address; write host:port, or host:port|host:port for several")
    return value


def truth_as_number(value: Any) -> Any:
    """Returns 1 for ``true`` and 0 for ``false``, in any spelling of case; other values as they are."""
    return {"true": 1, "false": 0}.get(value.lower(), value) if isinstance(value, str) else value


def _none_word(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value


Sizes = Annotated[tuple[Annotated[int, pydantic.Field(ge=1)], ...], pydantic.BeforeValidator(split_bars)]
# `from __future__ import annotations` and Python 3.9 together need Optional, not `X | None`, in pydantic fields.
OptionalPair = Annotated[
    Optional[tuple[float, float]], pydantic.BeforeValidator(lambda value: split_bars(_none_word(value)))
]
OptionalBool = Annotated[Optional[bool], pydantic.BeforeValidator(_none_word)]
OptionalInt = Annotated[Optional[int], pydantic.BeforeValidator(_none_word)]
OptionalFloat = Annotated[Optional[float], pydantic.BeforeValidator(_none_word)]
OptionalNormalization = Annotated[Optional[specs.Normalization], pydantic.BeforeValidator(_none_word)]
OptionalMetric = Annotated[
    Optional[Literal["top1", "top5", "macro_f1", "balanced_accuracy", "ece", "loss", "map"]],
    pydantic.BeforeValidator(_none_word),
]
OptionalStr = Annotated[Optional[str], pydantic.BeforeValidator(_none_word)]
OptionalPath = Annotated[
    Optional[str],
    pydantic.BeforeValidator(_none_word),
    pydantic.AfterValidator(lambda value: value and os.path.expanduser(value)),
]
Addresses = Annotated[
    tuple[Annotated[str, pydantic.AfterValidator(_check_address)], ...],
    pydantic.BeforeValidator(lambda value: split_bars(_none_word(value)) or ()),
]
Regex = Annotated[Optional[str], pydantic.BeforeValidator(_none_word), pydantic.AfterValidator(check_regex)]


def setting(default: Any, description: str, *, unit: str = "", source: str = "", **limits: Any) -> Any:
    """Declares a setting.

    Args:
        default: its value where neither a recipe nor the user gives one.
        description: what it does, which values mean what; no trailing period.
        unit: of a number.
        source: section or table of the paper, or ``"reference code"``; empty for a setting of this package alone.
        **limits: as for ``pydantic.Field``.
    """
    extra: dict[str, Any] = {"unit": unit, "source": source}
    return pydantic.Field(default, description=description, json_schema_extra=extra, **limits)


Trackers = Annotated[tuple[Literal["wandb", "mlflow"], ...], pydantic.BeforeValidator(split_bars)]


class Section(pydantic.BaseModel):
    """A section of a configuration. Instances are frozen, and unknown fields are an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
