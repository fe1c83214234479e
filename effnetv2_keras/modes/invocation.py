"""The input of a mode: the flags, the console, and the configuration from the flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Callable

import rich.console

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_all_overrides
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.modes.options import Options
from effnetv2_keras.modes.settings import Reads, check_read
from effnetv2_keras.reporting.console import show


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One call of the command line.

    Attributes:
        options: the flags.
        console: output.
        paths: arguments after the flags.
        load_recipe: returns the configuration of a recipe from its name, the network's name, and ``"paper"`` or
            ``"original"`` (the reference code's settings).
        given: names of the flags on the command line; the others have their defaults.
    """

    options: Options
    console: rich.console.Console
    paths: tuple[str, ...]
    load_recipe: Callable[[str, str, str], Config]
    given: frozenset[str] = frozenset()

    def changes(self, reads: Reads) -> dict[str, Any]:
        """Returns the values of ``--hparam_str`` by dotted name.

        Args:
            reads: the settings that the mode reads.

        Raises:
            ConfigError: if the text cannot be read, or the mode does not read a setting.
        """
        changes = parse_all_overrides(self.options.hparam_str)
        check_read(changes, reads, f"--mode={self.options.mode}")
        return changes

    def config(self, reads: Reads | None = None) -> Config:
        """Returns the configuration: the recipe, then ``--data_dir``, then ``--hparam_str``.

        Args:
            reads: the settings that the mode reads; None for all.

        Raises:
            ConfigError: for an unknown recipe or setting, a value that is not allowed, or a setting that the mode does
                not read.
        """
        changes = parse_all_overrides(self.options.hparam_str) if reads is None else self.changes(reads)
        changes.pop("recipe", None)
        return self.recipe().override(self.data_changes()).override(changes)

    def recipe(self) -> Config:
        """Returns the configuration of the recipe alone, without the settings that the command line changes.

        Raises:
            ConfigError: for an unknown recipe.
        """
        kind = parse_all_overrides(self.options.hparam_str).get("recipe", "paper")
        return self.load_recipe(self.options.dataset_cfg, self.options.model_name, str(kind))

    def data_changes(self) -> dict[str, Any]:
        """Returns the settings that ``--data_dir`` changes."""
        return {"data.data_dir": self.options.data_dir} if self.options.data_dir else {}

    def model_dir(self) -> str:
        """Returns ``--model_dir``.

        Raises:
            ConfigError: if the flag is not given.
        """
        if not self.options.model_dir:
            raise ConfigError(f"--mode={self.options.mode} needs --model_dir, the folder of the run.")
        return self.options.model_dir

    def format(self, allowed: Iterable[str]) -> str:
        """Returns ``--format``, or the first of the formats that the mode allows.

        Raises:
            ConfigError: if the mode does not support the format.
        """
        allowed = list(allowed)
        chosen = self.options.format or allowed[0]
        if chosen not in allowed:
            raise ConfigError(
                f"--mode={self.options.mode} does not support --format={chosen}; use one of {', '.join(allowed)}."
            )
        return chosen

    def strategy(self) -> Any:
        """Returns the ``tf.distribute.Strategy`` that the flags name.

        Raises:
            StrategyError: if the devices do not exist.
        """
        from effnetv2_keras.distribution.strategy import Devices, make_strategy

        options = self.options
        devices = Devices(options.tpu, options.tpu_zone, options.gcp_project, options.workers, options.worker_index)
        return make_strategy("tpu" if options.use_tpu else options.strategy, devices)

    def say(self, text: str) -> None:
        """Prints a line as it is, without console markup or line breaks."""
        show(self.console, text)
