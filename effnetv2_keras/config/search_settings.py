"""The ``search`` section of a configuration, for ``--mode=search`` (no TensorFlow)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from effnetv2_keras.architecture import specs
from effnetv2_keras.config.fields import OptionalFloat, OptionalInt, OptionalStr, Section, Sizes, setting, split_bars


def _no_doubles(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{'|'.join(map(str, values))} contains a choice twice; write each choice once")
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
        "random",
        "algorithm that proposes networks: random or reinforce (both named in paper section 3.3), or tpe; nsga2 "
        "optimizes the Pareto front of accuracy, step time and parameters instead of the reward",
        source="paper section 3.3",
    )
    trials: int = setting(
        100,
        "number of networks to evaluate, over all processes that share the search (paper section 3.3: up to 1000)",
        ge=1,
        unit="networks",
        source="paper section 3.3",
    )
    epochs: float = setting(
        10,
        "passes over the training images in a trial, which may be a fraction (paper section 3.3: about 10)",
        gt=0,
        unit="epochs",
        source="paper section 3.3",
    )
    image_size: OptionalInt = setting(
        None,
        "side of the training and evaluation images of a trial, pixels; None is the size of the first stage",
        ge=1,
        unit="pixels",
        source="paper section 3.3",
    )
    operators: Operators = setting(
        ("mbconv", "fused_mbconv"),
        "kinds of block that a stage may have: mbconv, fused_mbconv or both",
        source="paper section 3.3",
    )
    layers: Offsets = setting(
        (-1, 0, 1),
        "differences between the number of blocks in a stage and that of the backbone; a stage has at least 1",
        unit="blocks",
        source="paper section 3.3",
    )
    kernels: Choices = setting(
        (3, 5),
        "sides of the convolution kernel that a stage may have, pixels; odd",
        unit="pixels",
        source="paper section 3.3",
    )
    expansions: Choices = setting(
        (1, 4, 6),
        "expansion ratios that a stage may have: width of a block's hidden layer over its input",
        unit="ratio",
        source="paper section 3.3",
    )
    time_exponent: float = setting(
        -0.07, "exponent w of the step time in the reward", le=0, unit="exponent", source="paper section 3.3"
    )
    parameters_exponent: float = setting(
        -0.05, "exponent v of the parameters in the reward", le=0, unit="exponent", source="paper section 3.3"
    )
    max_parameters: OptionalFloat = setting(
        None, "largest number of trainable parameters of a network, millions; None for no limit", gt=0, unit="millions"
    )
    max_macs: OptionalFloat = setting(
        None,
        "largest number of multiply-adds of a network for one image of image_size, billions; None for no limit",
        gt=0,
        unit="billions",
    )
    max_step_time: OptionalFloat = setting(
        None,
        "largest time of a train step of a network, divided by that of the backbone; None for no limit",
        gt=0,
        unit="times the backbone",
    )
    timing_steps: int = setting(
        10,
        "number of train steps that are timed, of the network and of the backbone, which alternate",
        ge=1,
        unit="steps",
    )
    pruner: Literal["none", "halving"] = setting(
        "none",
        "halving: stop the worse half of the trials after epochs 1, 2, 4, ... (successive halving; cannot be combined "
        "with sampler=nsga2); none: train every trial to the end",
    )
    storage: OptionalStr = setting(
        None,
        "URL of a database that all processes can reach, in Optuna's syntax, such as "
        "postgresql://user:password@host/name; None uses a journal file in the search folder",
    )
    keep_checkpoints: bool = setting(False, "whether the checkpoints of finished trials are kept")

    @pydantic.field_validator("expansions", "kernels")
    @classmethod
    def _same_padding(cls, values: tuple[int, ...], info: pydantic.ValidationInfo) -> tuple[int, ...]:
        if info.field_name == "kernels" and any(value % 2 == 0 for value in values):
            raise ValueError("kernel sides must be odd, such as 3|5")
        return values

    @pydantic.model_validator(mode="after")
    def _pruner_has_one_aim(self) -> SearchConfig:
        if self.sampler == "nsga2" and self.pruner != "none":
            raise ValueError(
                "pruner=halving ranks trials by one metric, but sampler=nsga2 optimizes three; set pruner=none"
            )
        return self
