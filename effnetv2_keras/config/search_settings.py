"""The section of a configuration that ``--mode=search`` reads (no TensorFlow)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from effnetv2_keras.architecture import specs
from effnetv2_keras.config.fields import OptionalFloat, OptionalInt, OptionalStr, Section, Sizes, setting, split_bars


def _no_doubles(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{'|'.join(map(str, values))} names a choice twice; name each once")
    return values


Choices = Annotated[Sizes, pydantic.Field(min_length=1), pydantic.AfterValidator(_no_doubles)]
Operators = Annotated[
    tuple[specs.BlockKind, ...],
    pydantic.BeforeValidator(split_bars),
    pydantic.Field(min_length=1),
    pydantic.AfterValidator(_no_doubles),
]
Offsets = Annotated[
    tuple[int, ...],
    pydantic.BeforeValidator(split_bars),
    pydantic.Field(min_length=1),
    pydantic.AfterValidator(_no_doubles),
]


class SearchConfig(Section):
    """Architecture search (paper section 3.3); the backbone is ``model.model_name``."""

    sampler: Literal["random", "tpe", "nsga2", "reinforce"] = setting(
        "random", "who proposes networks; nsga2 seeks the front of accuracy, step time and parameters, not the reward"
    )
    trials: int = setting(100, "networks to evaluate, over all processes that share the search", ge=1)
    epochs: float = setting(10, "passes over the training images in a trial; may be a fraction", gt=0)
    image_size: OptionalInt = setting(None, "side of all images of a trial, pixels; None: the first stage's", ge=1)
    operators: Operators = setting(("mbconv", "fused_mbconv"), "blocks that a stage may consist of")
    layers: Offsets = setting((-1, 0, 1), "blocks of a stage: the backbone's number plus one of these, at least 1")
    kernels: Choices = setting((3, 5), "sides of the spatial kernel, pixels")
    expansions: Choices = setting((1, 4, 6), "widths of a block's hidden layer over its input's")
    time_exponent: float = setting(-0.07, "w of the reward: that of the step time", le=0)
    parameters_exponent: float = setting(-0.05, "v of the reward: that of the number of parameters", le=0)
    max_parameters: OptionalFloat = setting(None, "millions of trainable parameters that a network may have", gt=0)
    max_macs: OptionalFloat = setting(None, "billions of multiply-adds that it may take at image_size", gt=0)
    max_step_time: OptionalFloat = setting(None, "time that its train step may take, over that of the backbone", gt=0)
    timing_steps: int = setting(
        10, "train steps of the network, and of the backbone in turn with it, that are timed", ge=1
    )
    pruner: Literal["none", "halving"] = setting(
        "none", "halving: trials that are behind after epoch 1, 2, 4, ... end (successive halving; not with nsga2)"
    )
    storage: OptionalStr = setting(
        None, "URL of a database that all processes reach, as Optuna takes it; None: a journal file in the folder"
    )
    keep_checkpoints: bool = setting(False, "keep the weights of finished trials")

    @pydantic.field_validator("expansions", "kernels")
    @classmethod
    def _same_padding(cls, values: tuple[int, ...], info: pydantic.ValidationInfo) -> tuple[int, ...]:
        if info.field_name == "kernels" and any(value % 2 == 0 for value in values):
            raise ValueError("kernels have odd sides, such as 3|5")
        return values

    @pydantic.model_validator(mode="after")
    def _pruner_has_one_aim(self) -> SearchConfig:
        if self.sampler == "nsga2" and self.pruner != "none":
            raise ValueError("pruner=halving ranks trials by one figure, and sampler=nsga2 has three; set pruner=none")
        return self
