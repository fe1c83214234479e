"""The configuration of a run, which joins the sections (no TensorFlow).

A recipe in ``hparams/`` builds a ``Config``, and ``--hparam_str`` overrides single fields. The resolved configuration
is written to the run's folder and read back from there. Instances are frozen: nothing edits a configuration during a
run.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pydantic
import yaml
from absl import logging

from effnetv2_keras.architecture import keras_inputs, specs
from effnetv2_keras.basics.exact import exact
from effnetv2_keras.config import reference_keys
from effnetv2_keras.config.data_settings import DataConfig
from effnetv2_keras.config.eval_settings import EvalConfig
from effnetv2_keras.config.fields import Section
from effnetv2_keras.config.overrides import flatten, nearest, read_yaml
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.config.sections import (
    ModelConfig,
    PrecisionConfig,
    ProgressiveConfig,
    RuntimeConfig,
)
from effnetv2_keras.config.train_settings import TrainConfig
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.progressive import Stage

CONFIG_FILE = "config.yaml"

_CHANGEABLE = (
    "runtime.", "data.service", "data.unreadable", "data.max_unreadable", "data.verify", "eval.batch_size",
    "eval.every_epochs", "eval.min_steps", "eval.best_metric", "search.",
)  # fmt: skip
"""Settings, or prefixes of settings, that may change when a run is resumed.

They do not change its weights, with two exceptions: ``runtime.rematerialize`` and ``runtime.steps_per_loop`` change the
rounding, and a rollback (``runtime.nan_policy``) lowers the learning rate.
"""

_REMOVED = {
    "eval.per_class": "--mode=eval always prints the figures of each class, and writes them into the folder of the run "
    "or --output_dir"
}
"""Removed settings that a stored configuration may still have, and what replaces each of them."""


class Config(Section):
    """The configuration of a run."""

    model: ModelConfig = ModelConfig()
    progressive: ProgressiveConfig = ProgressiveConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    data: DataConfig = DataConfig()
    precision: PrecisionConfig = PrecisionConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    search: SearchConfig = SearchConfig()

    @pydantic.model_validator(mode="after")
    def _replicas_can_meet(self) -> Config:
        if self.train.sync_bn and self.precision.jit_compile:
            raise ValueError(
                "train.sync_bn and precision.jit_compile are both true, but replicas cannot exchange the statistics of "
                "BatchNorm in a step that XLA compiles; set one of them to false"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _classes_are_balanced_once(self) -> Config:
        if self.train.class_weights == "balanced" and self.data.balanced_sampling:
            raise ValueError(
                f"train.class_weights=balanced and data.balanced_sampling={self.data.balanced_sampling:g} would "
                "correct for unequal classes twice; set train.class_weights to None or to a file, or "
                "data.balanced_sampling to 0"
            )
        return self

    @property
    def spec(self) -> specs.AnySpec:
        """The network, normalized as the configuration says, or as the weights of a Keras network need."""
        spec = self.model.spec
        if not isinstance(spec, specs.KerasSpec) or self.model.normalization or self.train.ft_init_ckpt is None:
            return spec
        own = keras_inputs.NORMALIZATION.get(spec.name.partition(":")[2], spec.normalization)
        return dataclasses.replace(spec, normalization=own)

    @property
    def eval_size(self) -> int:
        """Side of the evaluation images, pixels."""
        return self.eval.isize or self.spec.eval_size

    @property
    def input_normalization(self) -> specs.Normalization | None:
        """The normalization that the input pipeline applies; None if the network normalizes its input."""
        return None if self.model.include_preprocessing else self.spec.normalization

    def with_network(self, spec: specs.ModelSpec) -> Config:
        """Returns a copy whose network is ``spec``, stored in the configuration as JSON."""
        return self.override({"model.model_name": spec.name, "model.network": spec.to_json()})

    def total_steps(self, num_train: int) -> int:
        """Returns the steps of the run: ``epochs * num_train / batch_size``, rounded down, and at least ``min_steps``.

        Args:
            num_train: number of training images.

        Raises:
            ConfigError: if a batch has more images than the training data.
        """
        if self.train.batch_size > num_train:
            raise ConfigError(
                f"train.batch_size is {self.train.batch_size} but there are only {num_train} training images. "
                f"Use a batch of at most {num_train}: --hparam_str=train.batch_size={min(num_train, 64)}"
            )
        return max(1, self.train.min_steps, int(exact(self.train.epochs) * self.steps_per_epoch(num_train)))

    def with_batch_for(self, num_train: int) -> Config:
        """Returns the configuration, with a smaller batch if it has more images than the training data.

        The smaller batch is the largest power of two that the data fills, which can be split over replicas.
        """
        size = self.train.batch_size
        if size <= num_train or num_train < 1:
            return self
        smaller = 2 ** (num_train.bit_length() - 1)
        logging.warning(
            "train.batch_size is %d, but there are only %d training images: a batch has %d images in this run.",
            size, num_train, smaller,
        )  # fmt: skip
        return self.override({"train.batch_size": smaller})

    def steps_per_epoch(self, num_train: int) -> Fraction:
        """Returns the training images divided by the batch size, not rounded."""
        return Fraction(num_train, self.train.batch_size)

    def evaluation_period(self, num_train: int) -> Fraction:
        """Returns the number of steps between two evaluations of a run on ``num_train`` images."""
        return self.eval.period(
            steps_per_epoch=self.steps_per_epoch(num_train), total_steps=self.total_steps(num_train)
        )

    def eval_batch_size(self, replicas: int) -> int:
        """Returns ``eval.batch_size``, rounded up to a multiple of the number of replicas, images.

        Every image counts once in an evaluation, whatever the batch.
        """
        return -(-self.eval.batch_size // replicas) * replicas

    def plan(self, total_steps: int) -> tuple[Stage, ...]:
        """Returns the stages of a run of ``total_steps`` steps."""
        return self.progressive.plan(total_steps, seed=self.train.seed, head_steps=self.head_steps(total_steps))

    def head_steps(self, total_steps: int) -> int:
        """Returns the number of steps at the start of a run of ``total_steps`` that train only the classifier."""
        if not self.train.head_share:
            return 0
        asked = max(1, int(exact(self.train.head_share) * total_steps))
        return max(0, min(asked, total_steps - self.progressive.stages))

    def micro_batches(self, stage: Stage) -> int:
        """Returns the number of micro-batches in which a replica computes its batch in a stage of ``plan``."""
        parts = self.train.accumulation_steps
        number = stage.index - bool(self.train.head_share)  # the stage of the classifier has none of its own
        return parts[max(number, 0)] if len(parts) > 1 else parts[0]

    @pydantic.model_validator(mode="after")
    def _accumulation_fits_the_stages(self) -> Config:
        given, stages = len(self.train.accumulation_steps), self.progressive.stages
        if given not in (1, stages):
            raise ValueError(
                f"train.accumulation_steps has {given} numbers, but progressive.stages is {stages}; give one number "
                "for all stages, or one for each stage"
            )
        return self

    def override(self, changes: Mapping[str, Any]) -> Config:
        """Returns a copy with dotted fields replaced: ``{"train.epochs": 10}``.

        Args:
            changes: new values by dotted name. A string is converted to the type of the field. Setting names from the
                reference code are accepted; see ``reference_keys``.

        Raises:
            ConfigError: for an unknown field (the message names the nearest known one), a value of the wrong type or
                out of range, or a setting of the reference code without an equivalent.
        """
        tree = self.model_dump()
        for key in changes.keys() & _REMOVED.keys():
            logging.warning("%s is no longer a setting and changes nothing: %s. Leave it out.", key, _REMOVED[key])
        changes = _still_there(changes)
        own = {key: value for key, value in changes.items() if key not in reference_keys.CONVERTED}
        changes = reference_keys.translate(changes, _context(_changed(tree, reference_keys.translate(own))))
        return _validate(_changed(tree, changes))

    def to_yaml(self) -> str:
        """Returns the configuration as YAML, which ``Config.from_yaml`` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @staticmethod
    def from_yaml(text: str) -> Config:
        """Returns the configuration in text that ``to_yaml`` wrote; missing fields have their defaults.

        Raises:
            ConfigError: for text that is not YAML, unknown fields, or values of the wrong type.
        """
        return Config().override(_still_there(read_yaml(text)))

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """Returns the fields that differ, except ``_CHANGEABLE``: ``{key: (value in self, value in other)}``."""
        mine, theirs = dict(flatten(self.model_dump())), dict(flatten(other.model_dump()))
        return {
            key: (mine[key], theirs[key])
            for key in mine
            if not key.startswith(_CHANGEABLE) and mine[key] != theirs[key]
        }


def _still_there(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key not in _REMOVED}


def _changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a nested configuration with values replaced by dotted name.

    Raises:
        ConfigError: for an unknown name.
    """
    result = copy.deepcopy(dict(tree))
    if "model.model_name" in changes:
        result["model"]["network"] = None  # it describes the previous network
    known = dict(flatten(result))
    for key, value in changes.items():
        if key not in known:
            raise ConfigError(f"Unknown hparam {key!r}; did you mean {nearest(key, known)!r}?")
        *parents, leaf = key.split(".")
        functools.reduce(lambda node, name: node[name], parents, result)[leaf] = value
    return result


def _context(tree: Mapping[str, Any]) -> reference_keys.Context:
    """Returns what settings of the reference code depend on, from a nested configuration before it is validated."""
    sections = ("model", "eval")  # the others need not fit together before the last setting is converted
    config = _validate({name: tree[name] for name in sections})
    return reference_keys.Context(config.eval_size, tree["data"]["augment_arithmetic"] == "clean")


def _validate(tree: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        problems = [
            (f"{'.'.join(str(part) for part in item['loc'])}={item['input']!r}: " if item["loc"] else "")
            + item["msg"]
            + _field_help([str(part) for part in item["loc"]])
            for item in error.errors()
        ]
        raise ConfigError("Cannot use this configuration. " + " ".join(problems)) from error


def _field_help(path: list[str]) -> str:
    """Returns the description of a field in parentheses, for the end of an error message; empty if it has none."""
    section: Any = Config
    for name in path:
        field = getattr(section, "model_fields", {}).get(name)
        if field is None:
            return ""
        if field.description and not hasattr(field.annotation, "model_fields"):
            return f" ({field.description})."
        section = field.annotation
    return ""
