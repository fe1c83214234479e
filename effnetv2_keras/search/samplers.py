"""Who proposes networks: Optuna's samplers, and a controller that learns by REINFORCE (no TensorFlow)."""

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
"""User attribute of a trial: by how much its network exceeds each limit, ``{limit: share}``."""
NOT_TRAINED = "not_trained"
"""User attribute of a trial whose network was not trained: why."""
CONTINUES = "continues"
"""User attribute of a trial: the number of the one before it that was interrupted, with the same network."""


def without_continued(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Leaves out the trials that another one goes on with."""
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    return [trial for trial in trials if trial.number not in continued]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's own reports, and its warnings of what may change in it, from the person at the keyboard."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class ReinforceSampler(optuna.samplers.BaseSampler):
    """A policy over the factorised space, trained by REINFORCE: the paper's other option beside random search.

    The policy is one categorical distribution for each decision. It is never stored: it follows from the finished
    trials in the order in which they ended, so that every process, and one that goes on later, has the same. After each
    trial the logits move along ``advantage * grad log p(point)``, where the advantage is the reward's distance from a
    moving baseline in moving standard deviations (Williams 1992; the controller of Zoph and Le, arXiv 1611.01578, and
    MnasNet, arXiv 1807.11626, without their recurrence). Failed trials count as the worst seen.

    Args:
        seed: of this draw.
        learning_rate: step of the logits.
        baseline_decay: of the moving mean and variance of the rewards.
        exploration: share of each draw that stays uniform, in [0, 1].
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
        """Takes all decisions of the trials so far; none before the first, which is drawn evenly."""
        return optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, optuna.distributions.BaseDistribution]
    ) -> dict[str, Any]:
        """Draws a point from the policy."""
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
        """Draws evenly."""
        options = param_distribution.choices  # type: ignore[attr-defined]
        return options[self._generator.integers(len(options))]

    def policy(
        self, choices: Mapping[str, Sequence[Any]], trials: Sequence[FrozenTrial]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Replays the finished trials.

        Args:
            choices: what each decision offers.
            trials: of the study, in any order.

        Returns:
            The probability of each choice, by decision.
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
    """What Optuna's samplers take as constraints: above 0 is too much."""
    return list(trial.user_attrs.get(EXCESS, {}).values())


def _random(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(_mixed(seed))


def _tpe(seed: Sequence[int], trials: int) -> optuna.samplers.BaseSampler:
    with quiet():
        return optuna.samplers.TPESampler(
            n_startup_trials=max(3, min(10, trials // 4)),
            multivariate=True,
            constant_liar=True,  # so that processes do not all propose the same
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
"""Each takes a seed and the number of trials that are planned."""


def make_sampler(settings: SearchConfig, seed: Sequence[int]) -> optuna.samplers.BaseSampler:
    """Makes the sampler of a search for its next draw; what it has learnt is in the study's trials.

    Args:
        settings: names the sampler.
        seed: whole numbers; the same ones and the same trials give the same point.
    """
    return SAMPLERS[settings.sampler](seed, settings.trials)
