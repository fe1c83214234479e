"""The configuration of a run: its sections together (no TensorFlow).

A recipe in ``hparams/`` builds a ``Config``; ``--hparam_str`` overrides single fields; the resolved result is written
to the run's folder and read back from there. Instances are frozen: nothing edits a configuration during a run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pydantic
import yaml

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import reference_keys
from effnetv2_keras.config.fields import Section
from effnetv2_keras.config.overrides import flatten, nearest, read_yaml
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.config.sections import (
    DataConfig,
    EvalConfig,
    ModelConfig,
    PrecisionConfig,
    ProgressiveConfig,
    RampConfig,
    RuntimeConfig,
    TrainConfig,
    ramp,
)
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.progressive import Stage

__all__ = [
    "CONFIG_FILE",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "PrecisionConfig",
    "ProgressiveConfig",
    "RampConfig",
    "RuntimeConfig",
    "SearchConfig",
    "TrainConfig",
    "ramp",
]

CONFIG_FILE = "config.yaml"

_CHANGEABLE = ("runtime.", "data.service", "eval.batch_size", "search.")
"""Settings, or beginnings of them, that may change when a run is resumed: they do not change its arithmetic."""


class Config(Section):
    """A whole run."""

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
                "train.sync_bn and precision.jit_compile are both true, but within what XLA compiles replicas cannot "
                "exchange BatchNorm's statistics; set one of them to false"
            )
        return self

    @property
    def spec(self) -> specs.AnySpec:
        """The network, with the normalisation that is asked for."""
        return self.model.spec

    @property
    def eval_size(self) -> int:
        """Side of the evaluation images, pixels."""
        return self.eval.isize or self.spec.eval_size

    @property
    def input_normalization(self) -> specs.Normalization | None:
        """The normalisation that the input pipeline applies; None where the network normalises its input itself."""
        return None if self.model.include_preprocessing else self.spec.normalization

    def with_network(self, spec: specs.ModelSpec) -> Config:
        """Returns a copy whose network is ``spec``, stored in the configuration as JSON."""
        return self.override({"model.model_name": spec.name, "model.network": spec.to_json()})

    def total_steps(self, num_train: int) -> int:
        """Steps of the run: ``epochs * num_train / batch_size``, rounded down, at least ``min_steps`` and 1.

        Raises:
            ConfigError: if one batch is larger than the training data.
        """
        if self.train.batch_size > num_train:
            raise ConfigError(
                f"train.batch_size is {self.train.batch_size} but there are only {num_train} training images. "
                f"Use a batch of at most {num_train}: --hparam_str=train.batch_size={min(num_train, 64)}"
            )
        return max(1, self.train.min_steps, int(self.train.epochs * num_train / self.train.batch_size))

    def plan(self, total_steps: int) -> tuple[Stage, ...]:
        """The stage plan of a run of ``total_steps`` steps."""
        return self.progressive.plan(total_steps, seed=self.train.seed)

    def micro_batches(self, stage: int) -> int:
        """Parts, one after the other, that a replica's batch is computed in, in the stage of this index, from 0."""
        parts = self.train.accumulation_steps
        return parts[stage] if len(parts) > 1 else parts[0]

    @pydantic.model_validator(mode="after")
    def _accumulation_fits_the_stages(self) -> Config:
        given, stages = len(self.train.accumulation_steps), self.progressive.stages
        if given not in (1, stages):
            raise ValueError(
                f"train.accumulation_steps has {given} numbers, but progressive.stages is {stages}: give one for all, "
                "or one for each stage"
            )
        return self

    def override(self, changes: Mapping[str, Any]) -> Config:
        """Returns a copy with dotted fields replaced: ``{"train.epochs": 10}``.

        Values may be strings, which are read as the field's own type. The reference code's names serve too; see
        ``reference_keys``.

        Raises:
            ConfigError: for an unknown field (the nearest known one is named) or a value of the wrong type.
        """
        changes = reference_keys.translate(
            changes, reference_keys.Context(self.eval_size, self.data.augment_arithmetic == "clean")
        )
        tree = self.model_dump()
        if "model.model_name" in changes:
            tree["model"]["network"] = None  # it is another's
        known = dict(flatten(tree))
        for key, value in changes.items():
            if key not in known:
                raise ConfigError(f"Unknown hparam {key!r}; did you mean {nearest(key, known)!r}?")
            *parents, leaf = key.split(".")
            functools.reduce(lambda node, name: node[name], parents, tree)[leaf] = value
        return _validate(tree)

    def to_yaml(self) -> str:
        """The configuration as YAML, read back by ``Config.from_yaml``."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @staticmethod
    def from_yaml(text: str) -> Config:
        """Reads what ``to_yaml`` wrote; fields left out take their defaults.

        Raises:
            ConfigError: for text that is not YAML, unknown fields, or values of the wrong type.
        """
        return Config().override(read_yaml(text))

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """Fields in which two runs differ, ``_CHANGEABLE`` aside: ``{key: (self's, other's)}``."""
        mine, theirs = dict(flatten(self.model_dump())), dict(flatten(other.model_dump()))
        return {
            key: (mine[key], theirs[key])
            for key in mine
            if not key.startswith(_CHANGEABLE) and mine[key] != theirs[key]
        }


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
    """The field's own description, for the end of an error message."""
    section: Any = Config
    for name in path:
        field = getattr(section, "model_fields", {}).get(name)
        if field is None:
            return ""
        if field.description and not hasattr(field.annotation, "model_fields"):
            return f" ({field.description})."
        section = field.annotation
    return ""
