"""Reads overrides of a configuration, from ``--hparam_str`` or YAML, as dotted keys (no TensorFlow)."""

from __future__ import annotations

import difflib
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from effnetv2_keras.basics.text_files import read_text
from effnetv2_keras.errors import ConfigError

_MOST_SHOWN = 40
"""Characters of a value that an error message shows."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the known word closest to ``word``; for a dotted key, a known one with the same last part comes first."""
    candidates = list(known)
    leaf = word.lower().split(".")[-1]
    by_leaf = [name for name in candidates if name.split(".")[-1] == leaf]
    return (by_leaf or difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.0))[0]


def parse_overrides(text: str) -> dict[str, Any]:
    """Reads ``--hparam_str``, which is ``"a.b=1,c.d=x|y"`` or the path of a YAML file.

    Returns:
        Dotted keys with their values: strings, or the types that YAML gives them.

    Raises:
        ConfigError: if the text is neither, or the file is missing or not a YAML mapping.
    """
    if text.endswith((".yaml", ".yml")):
        path = pathlib.Path(text)
        if not path.is_file():
            raise ConfigError(
                f"--hparam_str names the file {text!r}, which does not exist. Correct the path, or write key=value "
                "pairs."
            )
        return read_yaml(read_text(path))
    changes = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"Cannot read {part!r} in --hparam_str; write key=value pairs with commas between them, "
                "such as train.epochs=10,train.lr_base=0.01, or the path of a .yaml file."
            )
        changes[key.strip()] = value.strip()
    return changes


def parse_all_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Reads several ``--hparam_str`` with ``parse_overrides``; a later value replaces an earlier one."""
    changes: dict[str, Any] = {}
    for text in texts:
        for key, value in parse_overrides(text).items():
            changes.pop(key, None)  # of two names for one setting, the last one counts
            changes[key] = value
    return changes


def check_regex(value: str | None) -> str | None:
    """Returns ``value`` unchanged; raises ``ValueError`` if it is neither None nor a regular expression."""
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}; put a backslash before special characters") from error
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of a nested mapping with their dotted keys: ``("a.b", value)``."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Loader(yaml.SafeLoader):
    """Loads YAML without aliases. A few of them, each made of the one before, stand for any number of settings."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Returns the next node; raises ``ConfigError`` for an alias."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise ConfigError(
                f"The configuration has the alias *{event.anchor} in line {event.start_mark.line + 1}. Aliases are not "
                "supported; write the value there."
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Returns the value of a node; raises ``yaml.YAMLError`` for one that is not what it looks like, as a date."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            value = str(node.value)[:_MOST_SHOWN]
            raise yaml.constructor.ConstructorError(
                None, None, f"cannot read the value {value!r}; write it as 'text' or as a number", node.start_mark
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Returns a mapping; raises ``yaml.YAMLError`` if a key is in it twice, because one value would be lost."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is here for the second time; write each section and setting once",
                    key.start_mark,
                )  # fmt: skip
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> dict[str, Any]:
    """Returns the dotted keys and values of a YAML mapping; raises ``ConfigError`` for any other text."""
    try:
        tree = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError("The configuration is nested too deeply; a setting is 'section: {name: value}'.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"The configuration must be a YAML mapping such as 'train: {{epochs: 10}}', got {tree!r}.")
    return dict(flatten(tree))
