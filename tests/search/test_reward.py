import pytest

from effnetv2_keras.architecture import profile, variants
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.search.reward import Budget, reward
from effnetv2_keras.search.space import SearchSpace

BACKBONE = variants.get_spec("efficientnetv2-b0")


def budget_for(**settings):
    settings = SearchConfig(**settings)
    return Budget(SearchSpace(BACKBONE, settings), settings, image_size=64, num_classes=10)


def test_the_reward_is_that_of_the_paper():
    settings = SearchConfig()
    assert reward(0.8, 1, 1, settings) == pytest.approx(0.8)
    assert reward(0.8, 2, 1, settings) == pytest.approx(0.8 * 2**-0.07)
    assert reward(0.8, 1, 3, settings) == pytest.approx(0.8 * 3**-0.05)
    assert reward(0.8, 2, 3, SearchConfig(time_exponent=-1, parameters_exponent=0)) == pytest.approx(0.4)


@pytest.mark.parametrize(("step_time", "parameters"), [(0, 1), (1, 0), (-1, 1)])
def test_times_and_sizes_are_positive(step_time, parameters):
    with pytest.raises(ValueError, match="both must be positive"):
        reward(0.8, step_time, parameters, SearchConfig())


def test_costs_are_those_of_the_profile():
    costs = budget_for().costs(BACKBONE)
    assert costs.parameters == profile.count_parameters(BACKBONE, num_classes=10).trainable
    assert costs.macs == profile.count_macs(BACKBONE, image_size=64, num_classes=10)
    assert costs.relative_parameters == 1


def test_excess_is_a_share_of_each_limit():
    parameters = profile.count_parameters(BACKBONE, num_classes=10).trainable / 1e6
    excess = budget_for(max_parameters=parameters / 1.25, max_macs=1.0).excess(BACKBONE)
    assert excess["max_parameters"] == pytest.approx(0.25)
    assert excess["max_macs"] < 0
    assert budget_for().excess(BACKBONE) == {}


@pytest.mark.parametrize(
    ("limit", "value", "unit"),
    [("max_parameters", 0.01, "million parameters"), ("max_macs", 0.0001, "billion multiply-adds")],
)
def test_a_limit_below_the_smallest_network_is_refused(limit, value, unit):
    with pytest.raises(UsageError, match=rf"search.{limit} is {value} {unit}, but the smallest network .* has [\d.]+"):
        budget_for(**{limit: value})
