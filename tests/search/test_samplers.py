"""Samplers on a planted problem: a reward with a known optimum in the search space around EfficientNetV2-B0."""

import statistics

import numpy as np
import optuna
import pytest

from effnetv2_keras.architecture import variants
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.search.reward import Budget
from effnetv2_keras.search.samplers import CONTINUES, SAMPLERS, ReinforceSampler
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.study import Outcome, Study

SEEDS, TRIALS = range(10), 40


def planted(space, spec):
    """Returns an outcome that is worse for every decision that differs from the planted optimum."""
    point = space.point(spec)
    optimum = {
        name: choices[(7 * number + 3) % len(choices)] for number, (name, choices) in enumerate(space.decisions.items())
    }
    missed = sum(point[name] != choice for name, choice in optimum.items()) / len(point)
    return Outcome(accuracy=0.9 - 0.5 * missed, step_time=1 + missed)


def best_reward(sampler, seed, trials=TRIALS):
    settings = SearchConfig(sampler=sampler, trials=trials)
    space = SearchSpace(variants.get_spec("efficientnetv2-b0"), settings)
    budget = Budget(space, settings, image_size=64, num_classes=10)
    study = Study(space, budget, settings, storage=optuna.storages.InMemoryStorage(), seed=seed)
    while proposal := study.next():
        study.complete(proposal, planted(space, proposal.spec))
    rewards = [trial.user_attrs["reward"] for trial in study.trials()]
    assert len(rewards) == trials
    return max(rewards)


@pytest.fixture(scope="module")
def by_chance():
    return [best_reward("random", seed) for seed in SEEDS]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"random"}))
def test_learning_samplers_beat_random_sampling_at_equal_trials(sampler, by_chance):
    learnt = [best_reward(sampler, seed) for seed in SEEDS]
    assert sum(own > other for own, other in zip(learnt, by_chance)) >= 7
    assert statistics.mean(learnt) > statistics.mean(by_chance) + 0.01


def test_random_sampling_depends_on_the_seed(by_chance):
    assert len(set(by_chance)) > 5
    assert best_reward("random", SEEDS[3]) == by_chance[3]


def finished(number, value, state=optuna.trial.TrialState.COMPLETE, **params):
    distributions = {name: optuna.distributions.CategoricalDistribution(("a", "b")) for name in params}
    return optuna.trial.create_trial(params=params, distributions=distributions, value=value, state=state)


def test_the_policy_prefers_rewarded_choices_and_avoids_failed_ones():
    sampler, choices = ReinforceSampler([0]), {"x": ("a", "b"), "y": ("a", "b")}
    assert sampler.policy(choices, [])["x"] == pytest.approx([0.5, 0.5])
    rewarded = [
        finished(number, float(number % 2), x="ab"[number % 2], y="ab"[number // 2 % 2]) for number in range(40)
    ]
    policy = sampler.policy(choices, rewarded)
    assert policy["x"][1] > 0.8
    assert 0.3 < policy["y"][1] < 0.7
    failed = [
        finished(number, None, optuna.trial.TrialState.FAIL, x="b", y="a")
        if number % 2
        else finished(number, 0.5 + 0.01 * (number % 3), x="a", y="a")
        for number in range(40)
    ]
    assert sampler.policy(choices, failed)["x"][0] > 0.6
    for shares in policy.values():
        assert np.sum(shares) == pytest.approx(1)
        assert np.min(shares) >= 0.025


def test_an_interruption_does_not_count_as_a_failure():
    sampler, choices = ReinforceSampler([0]), {"x": ("a", "b"), "y": ("a", "b")}
    trials = [finished(number, 0.5 + 0.1 * (number % 3), x="ab"[number % 2], y="a") for number in range(12)]
    for number, trial in enumerate(trials):
        trial.number = number
    lost = finished(12, None, optuna.trial.TrialState.FAIL, x="b", y="b")
    again = finished(13, 0.6, x="b", y="b")
    lost.number, again.number = 12, 13
    again.set_user_attr(CONTINUES, 12)
    with_both, without = (sampler.policy(choices, some)["y"] for some in ([*trials, lost, again], [*trials, again]))
    assert with_both == pytest.approx(without)
