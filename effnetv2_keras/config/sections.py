"""Sections of a configuration: network, stages, execution and precision, with types, limits and units.

Open this module to look up or add a setting. The other sections are in ``train_settings``, ``data_settings``,
``eval_settings`` and ``search_settings``. The descriptions are also the text of the documentation and of error
messages. "Paper" is the EfficientNetV2 paper (arXiv 2104.00298); "reference code" is google/automl's efficientnetv2.
The module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Literal

import pydantic

from effnetv2_keras import progressive
from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.config.fields import (
    OptionalNormalization,
    OptionalStr,
    Section,
    Trackers,
    setting,
)


class RampConfig(Section):
    """Start and end of a quantity that changes from the first stage to the last."""

    start: float = setting(0.0, "value in the first stage")
    end: float = setting(0.0, "value in the last stage")

    def to_ramp(self) -> progressive.Ramp:
        """Returns the same ramp in the type of the stage planner."""
        return progressive.Ramp(self.start, self.end)


def ramp(start: float, end: float) -> RampConfig:
    """Returns a ``RampConfig``; a shorthand for recipes."""
    return RampConfig(start=start, end=end)


class ModelConfig(Section):
    """The network."""

    model_name: str = setting(
        "efficientnetv2-b0",
        "network: a name such as efficientnetv2-s or efficientnet-b0, the path of a ModelSpec file (.json), keras:NAME "
        "for a model of tf.keras.applications, or keras:package.module:function for a function that returns a model",
    )
    network: OptionalStr = setting(
        None,
        "ModelSpec of the network as JSON; it is filled in from the file when model_name is a .json path, and None for "
        "a named network",
    )
    survival_prob: float = setting(
        0.8,
        "stochastic depth: probability that the deepest block is kept in a training step (paper section 5.1; not for "
        "keras: networks); it decreases linearly from 1 at the first block; 1 turns stochastic depth off",
        gt=0,
        le=1,
        unit="probability",
        source="paper section 5.1",
    )
    bn_momentum: float = setting(
        0.99,
        "momentum of the moving averages of BatchNorm",
        ge=0,
        lt=1,
        unit="factor per step",
        source="paper section 5.1",
    )
    bn_epsilon: float = setting(
        1e-3,
        "number that BatchNorm adds to the variance (not for keras: networks)",
        gt=0,
        unit="variance",
        source="reference code",
    )
    act_fn: str = setting(
        "silu",
        "activation, by its name in tf.keras.activations (not for keras: networks)",
        source="reference code",
    )
    classifier_init: Literal["small", "reference"] = setting(
        "small",
        "range of the classifier's initial kernel (not for keras: networks): small is 1 / sqrt(1000), or less for more "
        "classes, so that training starts near chance; reference is 1 / sqrt(classes), which with few classes starts "
        "far from chance",
        source="reference code",
    )
    normalization: OptionalNormalization = setting(
        None,
        "how pixels in 0..255 become network input: centered is (pixel - 128) / 128, symmetric scales to -1..1, "
        "imagenet uses the mean and standard deviation of ImageNet, and caffe only subtracts the mean; None uses the "
        "normalization of the network, or of its published weights if a keras: network starts from them",
        source="reference code",
    )
    include_preprocessing: bool = setting(
        True,
        "true: the model normalizes its input, which is pixels in 0..255; false: the input pipeline normalizes, and "
        "the model expects normalized pixels",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_network(cls, fields: Any) -> Any:
        name = fields.get("model_name") if isinstance(fields, dict) else None
        if isinstance(name, str) and name.endswith(".json") and not fields.get("network"):
            return {**fields, "network": variants.get_spec(name).to_json()}
        return fields

    @pydantic.model_validator(mode="after")
    def _known_network(self) -> ModelConfig:
        _ = self.spec
        return self

    @property
    def spec(self) -> specs.AnySpec:
        """The network, with the normalization of the configuration."""
        spec = specs.ModelSpec.from_json(self.network) if self.network else variants.any_spec(self.model_name)
        return dataclasses.replace(spec, normalization=self.normalization or spec.normalization)


class _StageSettings(Section):
    """The settings that apply to all stages."""

    stages: int = setting(
        4,
        "number of stages; with 1, the whole run uses the end of each ramp",
        ge=1,
        unit="stages",
        source="paper Algorithm 1",
    )
    schedule: progressive.RampSchedule = setting(
        "paper",
        "how the image size grows: paper goes from start in the first stage to end in the last (paper Algorithm 1); "
        "original grows by (stage + 1) / stages, with stages counted from 0, so no stage has the start size "
        "(reference code)",
        source="paper Algorithm 1, reference code",
    )
    order: progressive.StageOrder = setting(
        "rising",
        "order of the stages: rising goes from the start to the end of each ramp; random draws a position on the ramps "
        "for each stage from train.seed (random resizing, paper Table 13)",
        source="paper Algorithm 1, Table 13",
    )
    size_multiple: int = setting(
        1, "image sizes are rounded to the nearest multiple of this number of pixels", ge=1, unit="pixels"
    )


_RAMPS: dict[str, Any] = {
    name: (
        RampConfig,
        setting(
            ramp(quantity.default.start, quantity.default.end),
            quantity.description,
            unit=quantity.unit,
            source=quantity.source,
        ),
    )
    for name, quantity in progressive.QUANTITIES.items()
}
_RampSettings: Any = pydantic.create_model("_RampSettings", __base__=_StageSettings, **_RAMPS)


class ProgressiveConfig(_RampSettings):
    """Stages of progressive learning (paper section 4, Algorithm 1 and Table 6).

    Every quantity of ``progressive.QUANTITIES`` is a setting with a ``start`` and an ``end``.
    """

    if typing.TYPE_CHECKING:  # type checkers cannot read the table of settings

        def __init__(self, **settings: Any) -> None: ...

        def __getattr__(self, name: str) -> RampConfig: ...

    def plan(self, total_steps: int, *, seed: int = 0, head_steps: int = 0) -> tuple[progressive.Stage, ...]:
        """Returns the stages of a run of ``total_steps`` steps. ``Config.plan`` also passes the settings of the run."""
        return progressive.plan_stages(
            self.ramps(),
            num_stages=self.stages,
            total_steps=total_steps,
            schedule=self.schedule,
            order=self.order,
            size_multiple=self.size_multiple,
            seed=seed,
            head_steps=head_steps,
        )

    def ramps(self) -> progressive.Ramps:
        """Returns the ramps in the type of the stage planner."""
        return progressive.Ramps(**{name: getattr(self, name).to_ramp() for name in progressive.QUANTITIES})

    @pydantic.model_validator(mode="after")
    def _ramps_in_range(self) -> ProgressiveConfig:
        self.ramps()
        return self


class RuntimeConfig(Section):
    """Execution. These settings may change when a run is resumed.

    Results change only with a rollback and, by rounding, with ``steps_per_loop`` and ``rematerialize``.
    """

    steps_per_loop: int = setting(
        1,
        "steps on the device between two host round trips; more is faster on TPUs",
        ge=1,
        unit="steps",
        source="reference code",
    )
    preflight: bool = setting(
        True,
        "whether the run tries a step of the largest stage and an evaluation batch, to check memory and data; before "
        "or right after its first step",
    )
    nan_policy: Literal["stop", "rollback"] = setting(
        "stop",
        "what happens when the loss, gradient or a weight is not finite: stop ends the run; rollback resumes from the "
        "last checkpoint with a lower learning rate",
    )
    max_rollbacks: int = setting(
        3, "nan_policy=rollback: largest number of rollbacks in a run before it stops", ge=0, unit="rollbacks"
    )
    rollback_lr_factor: float = setting(
        0.5,
        "nan_policy=rollback: factor by which each rollback multiplies the learning rate",
        gt=0,
        le=1,
        unit="factor",
    )
    stall_seconds: float = setting(
        120, "seconds without a batch before a warning that the input is stalled", gt=0, unit="seconds"
    )
    log_every: int = setting(
        20, "steps between two lines of metrics.jsonl", ge=1, unit="steps", source="reference code"
    )
    checkpoint_every: int = setting(
        1000,
        "steps between two checkpoints; each evaluation and the end of each stage also write one",
        ge=1,
        unit="steps",
    )
    keep_checkpoint_max: int = setting(
        5,
        "number of recent checkpoints to keep besides the best one",
        ge=1,
        unit="checkpoints",
        source="reference code",
    )
    tensorboard: bool = setting(True, "whether the run writes TensorBoard event files")
    trackers: Trackers = setting(
        (), "experiment trackers that receive the metrics: wandb, mlflow or wandb|mlflow; empty for none"
    )
    rematerialize: bool = setting(
        False,
        "whether blocks are computed a second time for the gradient instead of kept in memory: less memory, slower "
        "steps (not for keras: networks)",
    )


class PrecisionConfig(Section):
    """Number formats and compilation."""

    policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = setting(
        "float32",
        "type of the computation; weights, logits and loss stay float32; mixed_float16 adds dynamic loss scaling",
        source="reference code",
    )
    jit_compile: bool = setting(False, "whether XLA compiles the train step; cannot be combined with train.sync_bn")
