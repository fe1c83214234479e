"""The reward of a search, and its limits on parameters and multiply-adds (no TensorFlow)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from effnetv2_keras.architecture.profile import count_macs, count_parameters
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.search.space import SearchSpace


def reward(accuracy: float, step_time: float, parameters: float, settings: SearchConfig) -> float:
    """Returns the reward of a network: ``A * S^w * P^v`` (paper section 3.3).

    Both S and P are relative to the backbone, so the reward of the backbone is its accuracy. The paper only normalizes
    S. Normalizing P as well multiplies all rewards by the same number.

    Args:
        accuracy: A, the accuracy on held-out images after the short training, in [0, 1].
        step_time: S, the time of a training step divided by that of the backbone, positive.
        parameters: P, the number of trainable parameters divided by that of the backbone, positive.
        settings: w is ``time_exponent`` and v is ``parameters_exponent``; the paper's are -0.07 and -0.05.

    Raises:
        ValueError: if ``step_time`` or ``parameters`` is not positive.
    """
    if step_time <= 0 or parameters <= 0:
        raise ValueError(f"step_time is {step_time} and parameters is {parameters}; both must be positive.")
    return float(accuracy * step_time**settings.time_exponent * parameters**settings.parameters_exponent)


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a network, computed from its specification.

    Attributes:
        parameters: number of trainable parameters.
        macs: multiply-adds for one image.
        relative_parameters: trainable parameters divided by those of the backbone.
    """

    parameters: int
    macs: int
    relative_parameters: float


class Budget:
    """The limits of a search that can be checked before a network is trained.

    Args:
        space: the search space.
        settings: the limits.
        image_size: side of the images, pixels.
        num_classes: width of the classifier.

    Raises:
        UsageError: if every network of the space exceeds a limit.
    """

    def __init__(self, space: SearchSpace, settings: SearchConfig, *, image_size: int, num_classes: int) -> None:
        self._settings, self._image_size, self._num_classes = settings, image_size, num_classes
        self._reference = self._parameters(space.backbone)
        for key, limit, unit, name, count in self._limits():
            least = count(space.smallest(count)) / unit
            if limit is not None and least > limit:
                raise UsageError(
                    f"search.{key} is {limit:g} {name}, but the smallest network of this space has {least:.4g}. Raise "
                    f"the limit, use a smaller backbone as --model_name, or include smaller choices in the space, such "
                    "as search.layers=-2|-1|0, search.expansions=1|4, search.kernels=3."
                )

    def _limits(self) -> tuple[tuple[str, float | None, float, str, Callable[[ModelSpec], int]], ...]:
        settings = self._settings
        return (
            ("max_parameters", settings.max_parameters, 1e6, "million parameters", self._parameters),
            ("max_macs", settings.max_macs, 1e9, "billion multiply-adds", self._macs),
        )

    def _parameters(self, spec: ModelSpec) -> int:
        return count_parameters(spec, num_classes=self._num_classes).trainable

    def _macs(self, spec: ModelSpec) -> int:
        return count_macs(spec, image_size=self._image_size, num_classes=self._num_classes)

    def costs(self, spec: ModelSpec) -> Costs:
        """Returns the costs of a network."""
        parameters = self._parameters(spec)
        return Costs(parameters, self._macs(spec), parameters / self._reference)

    def excess(self, spec: ModelSpec) -> dict[str, float]:
        """Returns by how much a network exceeds each limit, as a share of the limit; 0 or less if it does not."""
        return {
            key: count(spec) / unit / limit - 1 for key, limit, unit, _, count in self._limits() if limit is not None
        }
