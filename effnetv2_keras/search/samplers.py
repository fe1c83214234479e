"""Samplers that propose networks: those of Optuna, and a policy trained by REINFORCE (no TensorFlow)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from effnetv2_keras.config.search_settings import SearchConfig

EXCESS = "excess"
"""User attribute of a trial: the excess of its network over each limit, as a share of the limit, ``{limit: share}``."""
NOT_TRAINED = "not_trained"
"""User attribute of a trial: the reason why its network was not trained."""
CONTINUES = "continues"
"""User attribute of a trial: the number of the interrupted trial with the same network that it continues."""


def without_continued(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials without those that another trial continues."""
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    return [trial for trial in trials if trial.number not in continued]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides Optuna's log lines and its warnings about experimental features, inside a ``with`` block."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class ReinforceSampler(optuna.samplers.BaseSampler):
    """A policy over the factorized space, trained by REINFORCE, which the paper names beside random search.

    The policy has a separate categorical distribution for each decision. It is never stored: it is computed from the
    finished trials in the order in which they ended, so that every process and every resumed search has the same
    policy. After each trial, the logits move along ``advantage * grad log p(point)``. The advantage is the difference
    between the reward and a moving mean, in moving standard deviations (Williams 1992; the controller of Zoph and Le,
    arXiv 1611.01578, and MnasNet, arXiv 1807.11626, without their recurrence). Failed trials count as the worst reward
    so far.

    Args:
        seed: seed of this draw.
        learning_rate: step size of the logits.
        baseline_decay: decay of the moving mean and variance of the rewards, in [0, 1).
        exploration: share of the uniform distribution in each draw, in [0, 1].
    """

    def __init__(
        self,
        seed: Sequence[int],
        *,
        learning_rate: float = 0.25,
        baseline_decay: float = 0.9,
        exploration: float = 0.05,
    ) -> None:
        self._generator = np.random.default_rng(list(seed))
        self._learning_rate, self._decay, self._exploration = learning_rate, baseline_decay, exploration

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """Returns the decisions of the trials so far; before the first trial, none, so its draw is uniform."""
        return optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, optuna.distributions.BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a point drawn from the policy."""
        if not search_space:
            return {}
        choices = {name: distribution.choices for name, distribution in search_space.items()}  # type: ignore[attr-defined]
        policy = self.policy(choices, study.get_trials(deepcopy=False))
        return {
            name: options[self._generator.choice(len(options), p=policy[name])] for name, options in choices.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Returns a choice drawn from the uniform distribution."""
        options = param_distribution.choices  # type: ignore[attr-defined]
        return options[self._generator.integers(len(options))]

    def policy(
        self, choices: Mapping[str, Sequence[Any]], trials: Sequence[FrozenTrial]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Returns the policy after the finished trials.

        Args:
            choices: the choices of each decision.
            trials: trials of the study, in any order.

        Returns:
            The probabilities of the choices of each decision, float64.
        """
        ended = [
            trial
            for trial in without_continued(trials)
            if trial.state.is_finished() and NOT_TRAINED not in trial.user_attrs
        ]
        ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        logits = {name: np.zeros(len(options)) for name, options in choices.items()}
        mean, variance = None, 0.0
        rewards = [trial.value if trial.state == TrialState.COMPLETE else None for trial in ended]
        worst = min((value for value in rewards if value is not None), default=0.0)
        for trial, rewarded in zip(ended, rewards):
            value = worst if rewarded is None else rewarded
            if mean is None:
                mean = value
                continue
            advantage = float(np.clip((value - mean) / np.sqrt(variance + 1e-12), -3, 3)) if variance else 0.0
            for name, options in choices.items():
                gradient = -self._probabilities(logits[name])
                gradient[options.index(trial.params[name])] += 1
                logits[name] += self._learning_rate * advantage * gradient
            difference = value - mean
            mean += (1 - self._decay) * difference
            variance = self._decay * (variance + (1 - self._decay) * difference**2)
        uniform = self._exploration
        return {
            name: (1 - uniform) * self._probabilities(values) + uniform / len(values) for name, values in logits.items()
        }

    @staticmethod
    def _probabilities(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    """Returns the constraints for Optuna's samplers; values above 0 violate a constraint."""
    return list(trial.user_attrs.get(EXCESS, {}).values())


def _random(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(_mixed(seed))


def _tpe(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    with quiet():
        return optuna.samplers.TPESampler(
            n_startup_trials=max(3, min(10, trials // 4)),
            multivariate=True,
            constant_liar=True,  # keeps parallel processes from proposing the same network
            constraints_func=_constraints,
            seed=_mixed(seed),
        )


def _nsga2(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    with quiet():
        return optuna.samplers.NSGAIISampler(population_size=max(4, min(50, trials // 6)), seed=_mixed(seed))


def _reinforce(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    return ReinforceSampler(seed)


def _mixed(seed: Sequence[int]) -> int:
    return int(np.random.SeedSequence(list(seed)).generate_state(1)[0])


SAMPLERS: dict[str, Callable[[Sequence[int], int], optuna.samplers.BaseSampler]] = {
    "random": _random,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "reinforce": _reinforce,
}
"""The function that builds each sampler, from a seed and the planned number of trials."""


def make_sampler(settings: SearchConfig, seed: Sequence[int]) -> optuna.samplers.BaseSampler:
    """Builds the sampler of a search for its next draw; samplers keep no state besides the trials of the study.

    Args:
        settings: settings of the search, which name the sampler.
        seed: integers; the same integers and the same trials give the same point.
    """
    return SAMPLERS[settings.sampler](seed, settings.trials)
