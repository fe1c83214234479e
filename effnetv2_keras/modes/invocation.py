"""The input of a mode: the flags, the console, and the configuration from the flags."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any, Callable

import rich.console
from absl import logging

from effnetv2_keras.architecture.variants import DEFAULT_MODEL
from effnetv2_keras.config import Config, Facts
from effnetv2_keras.config.overrides import parse_all_overrides
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.modes.options import DATA_SERVICE, PLAN, PREVIEW, SEARCH, TRAIN, Options
from effnetv2_keras.modes.settings import Reads, check_read
from effnetv2_keras.reporting.console import show

_MODES_WITH_DATA = (TRAIN, PLAN, PREVIEW, SEARCH, DATA_SERVICE)


def _choice(config: Config, facts: Facts, *, named: bool) -> str:
    """Returns a sentence with the settings that a recipe chose for the images."""
    train, ramp = config.train, config.progressive.image_size
    side = "" if facts.shorter_side is None else f" of about {facts.shorter_side} px"
    sizes = f"{ramp.start:g} to {ramp.end:g} px" if config.progressive.stages > 1 else f"{ramp.end:g} px"
    start = f"from the weights {train.ft_init_ckpt}" if train.ft_init_ckpt else "from random weights"
    return (
        f"For {facts.num_train:,} training images{side} the recipe chooses {'' if named else config.spec.name + ', '}"
        f"{train.epochs:g} epochs of batches of {train.batch_size}, {sizes}, {start}. "
        f"{'' if named else '--model_name and '}--hparam_str change{'s' if named else ''} it."
    )


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One call of the command line.

    Attributes:
        options: the flags.
        console: output.
        paths: arguments after the flags.
        load_recipe: returns the configuration of a recipe from its name, the network's name (None if it is not named),
            ``"paper"`` or ``"original"`` (the reference code's settings), and a function that finds the facts about the
            images.
        given: names of the flags on the command line; the others have their defaults.
    """

    options: Options
    console: rich.console.Console
    paths: tuple[str, ...]
    load_recipe: Callable[[str, str | None, str, Callable[[Config], Facts] | None], Config]
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
        return self.recipe.override(self.data_changes()).override(changes)

    @functools.cached_property
    def recipe(self) -> Config:
        """The configuration of the recipe alone, without the settings that the command line changes.

        Recipes for your own images depend on their number and size, and on ``train.ft_init_ckpt``. In the modes that
        use the data, a line says what the recipe chose.

        Raises:
            ConfigError: for an unknown recipe.
            DataError: if the images are needed and cannot be used.
        """
        options, found = self.options, []
        kind = str(parse_all_overrides(options.hparam_str).get("recipe", "paper"))
        if options.mode not in _MODES_WITH_DATA:
            return self.load_recipe(options.dataset_cfg, options.model_name or DEFAULT_MODEL, kind, None)

        def find_facts(usual: Config) -> Facts:
            found.append(self._facts(usual))
            return found[0]

        config = self.load_recipe(options.dataset_cfg, options.model_name, kind, find_facts)
        if found:
            self.say(_choice(config, found[0], named=options.model_name is not None))
        return config

    def _facts(self, usual: Config) -> Facts:
        """Returns the facts about the images that the flags name, given the recipe for a usual number of images."""
        from effnetv2_keras.data.splits import find_sizes, shorter_side

        changes = parse_all_overrides(self.options.hparam_str)
        changes.pop("recipe", None)
        named = {key: value for key, value in changes.items() if key.startswith("data.")}
        data = usual.override(self.data_changes()).override(named).data
        weights = changes.get("train.ft_init_ckpt")
        given = None if weights is None else "" if str(weights).lower() in ("", "none") else str(weights)
        if data.data_dir is None and data.source != "tfds":
            return Facts(weights=given)  # that there is no data is said where it is opened
        told = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # the images are opened again later, and all is told then
        try:
            sizes = find_sizes(data)
        finally:
            logging.set_verbosity(told)
        return Facts(sizes.num_train, shorter_side(sizes.train) if sizes.train else None, given)

    def data_changes(self) -> dict[str, Any]:
        """Returns the settings that ``--data_dir`` changes; a single file is a list of images."""
        place = self.options.data_dir
        if not place:
            return {}
        is_list = self.options.dataset_cfg.lower() in ("folder", "finetune") and os.path.isfile(place)
        return {"data.data_dir": place, **({"data.source": "csv"} if is_list else {})}

    def refuse(self, why: str, *names: str) -> None:
        """Checks that flags which the mode does not read in this case have their defaults.

        Args:
            why: a clause that says why they are not read.
            names: the flags.

        Raises:
            ConfigError: if one has another value.
        """
        defaults = Options()
        given = [f"--{name}" for name in names if getattr(self.options, name) != getattr(defaults, name)]
        if given:
            raise ConfigError(
                f"{why}, so {' and '.join(given)} would change nothing. Leave {'it' if len(given) == 1 else 'them'} "
                "out."
            )

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
