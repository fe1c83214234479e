"""Types of settings that ``--hparam_str`` can write, and how a setting is declared (no TensorFlow)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Optional

import pydantic

from effnetv2_keras.architecture import specs
from effnetv2_keras.config.overrides import check_regex


def split_bars(value: Any) -> Any:
    """Reads ``"a|b|c"`` as a list, the list syntax of ``--hparam_str``."""
    if isinstance(value, str):
        return [part for part in value.split("|") if part]
    return [value] if isinstance(value, (int, float)) else value


def _check_address(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):\d{1,5}", value):
        raise ValueError(f"{value!r} is no address; write host:port, several as host:port|host:port")
    return value


def _none_word(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value


Sizes = Annotated[tuple[Annotated[int, pydantic.Field(ge=1)], ...], pydantic.BeforeValidator(split_bars)]
# `from __future__ import annotations` and Python 3.9 together need Optional, not `X | None`, in pydantic fields.
OptionalPair = Annotated[
    Optional[tuple[float, float]], pydantic.BeforeValidator(lambda value: split_bars(_none_word(value)))
]
OptionalInt = Annotated[Optional[int], pydantic.BeforeValidator(_none_word)]
OptionalFloat = Annotated[Optional[float], pydantic.BeforeValidator(_none_word)]
OptionalNormalization = Annotated[Optional[specs.Normalization], pydantic.BeforeValidator(_none_word)]
OptionalStr = Annotated[Optional[str], pydantic.BeforeValidator(_none_word)]
Addresses = Annotated[
    tuple[Annotated[str, pydantic.AfterValidator(_check_address)], ...],
    pydantic.BeforeValidator(lambda value: split_bars(_none_word(value)) or ()),
]
Regex = Annotated[Optional[str], pydantic.BeforeValidator(_none_word), pydantic.AfterValidator(check_regex)]


def setting(default: Any, description: str, **limits: Any) -> Any:
    """Describes a setting: its default, what it is for, and its limits."""
    return pydantic.Field(default, description=description, **limits)


Trackers = Annotated[tuple[Literal["wandb", "mlflow"], ...], pydantic.BeforeValidator(split_bars)]


class Section(pydantic.BaseModel):
    """Frozen; unknown fields are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
