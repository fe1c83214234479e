import dataclasses
import math
import random

import pytest
import tensorflow as tf

from effnetv2_keras.architecture import profile, specs, variants
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import ConfigError, UsageError
from effnetv2_keras.models import build_model
from effnetv2_keras.search.space import SearchSpace, unscaled
from tests.tiny import TINY


def space_around(name="efficientnetv2-b0", **settings):
    return SearchSpace(variants.get_spec(name), SearchConfig(**settings))


def random_point(space, generator):
    return {decision: generator.choice(choices) for decision, choices in space.decisions.items()}


def counted_macs(model, size):
    """Returns the multiply-adds of a built model, counted from the operations of its graph."""
    graph = tf.function(model).get_concrete_function(tf.TensorSpec([1, size, size, 3])).graph
    macs = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
            _, height, width, _ = operation.outputs[0].shape
            macs += height * width * math.prod(operation.inputs[1].shape)
        elif operation.type == "MatMul":
            macs += operation.inputs[0].shape[0] * math.prod(operation.inputs[1].shape)
        else:
            assert operation.type not in ("BatchMatMulV2", "Einsum", "Conv3D")
    return macs


@pytest.mark.parametrize("name", variants.MODELS)
def test_multipliers_of_one_leave_the_network_as_it_is(name):
    spec = variants.MODELS[name]
    assert specs.expand(unscaled(spec)) == specs.expand(spec)
    assert (unscaled(spec).width, unscaled(spec).depth) == (1, 1)


def test_the_default_space_is_that_of_the_paper():
    space = space_around("efficientnet-b4")
    assert space.decisions["stage3.operator"] == ("mbconv", "fused_mbconv")
    assert space.decisions["stage3.kernel"] == (3, 5)
    assert space.decisions["stage3.expansion"] == (1, 4, 6)
    assert space.decisions["stage3.layers"] == (3, 4, 5)
    assert space.size == (2 * 3 * 2 * 3) ** 7


def test_a_stage_keeps_a_layer_at_least():
    assert space_around(layers=(-2, -1, 0, 1)).decisions["stage1.layers"] == (1, 2)


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-b4", "efficientnetv2-b0", "efficientnetv2-s"])
def test_points_keep_channels_and_strides_and_are_found_again(name):
    space, generator = space_around(name), random.Random(name)
    for _ in range(50):
        point = random_point(space, generator)
        spec = space.spec(point)
        assert space.point(spec) == point
        assert specs.ModelSpec.from_json(spec.to_json()) == spec
        for block, own in zip(space.backbone.blocks, spec.blocks):
            for field in ("stride", "input_filters", "output_filters"):
                assert getattr(block, field) == getattr(own, field)
            assert own.se_ratio == (0.25 if own.kind == "mbconv" else 0)


def test_the_backbone_is_a_point_of_its_space_where_it_may_be():
    space = space_around("efficientnetv2-s")
    assert space.spec(space.point(variants.get_spec("efficientnetv2-s"))).blocks == space.backbone.blocks


def test_equal_networks_have_equal_names_and_others_have_not():
    space, generator = space_around(), random.Random(0)
    points = [random_point(space, generator) for _ in range(50)]
    assert len({space.spec(point).name for point in points}) == 50
    assert space.spec(points[0]).name == space_around().spec(points[0]).name


@pytest.mark.parametrize("change", [{"head_filters": 640}, {"eval_size": 64}, {"depth": 3.0}])
def test_another_network_is_no_point(change):
    space = space_around()
    with pytest.raises(UsageError, match="is not in the search space around efficientnetv2-b0"):
        space.point(dataclasses.replace(variants.get_spec("efficientnetv2-b0"), **change))


def test_a_choice_that_is_not_offered_is_refused():
    space = space_around()
    point = {**random_point(space, random.Random(0)), "stage2.kernel": 7}
    with pytest.raises(UsageError, match=r"stage2.kernel is 7; use one of the choices of this space: 3, 5"):
        space.spec(point)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": "4"}, "kernel sides must be odd"),
        ({"kernels": ""}, "kernels"),
        ({"expansions": "4|4"}, "4|4 contains a choice twice"),
        ({"operators": "mbconv|conv"}, "operators"),
        ({"layers": "one"}, "layers"),
        ({"trials": "0"}, "trials"),
        ({"sampler": "nsga2", "pruner": "halving"}, "set pruner=none"),
        ({"time_exponent": "0.07"}, "time_exponent"),
    ],
)
def test_an_invalid_space_is_named(settings, message):
    from effnetv2_keras.config import Config

    with pytest.raises(ConfigError, match=message):
        Config().override({f"search.{key}": value for key, value in settings.items()})


def test_a_keras_model_is_no_backbone():
    with pytest.raises(UsageError, match="keras:ResNet50 has no stages of blocks to choose"):
        SearchSpace(variants.any_spec("keras:ResNet50"), SearchConfig())


def test_the_smallest_network_is_the_smallest():
    space = SearchSpace(TINY, SearchConfig(kernels=(3,), layers=(0, 1)))
    least = profile.count_parameters(space.smallest(lambda spec: profile.count_parameters(spec).total)).total
    points = [dict(zip(space.decisions, row)) for row in _product(space.decisions.values())]
    assert len(points) == space.size
    assert least == min(profile.count_parameters(space.spec(point)).total for point in points)


def _product(choices):
    import itertools

    return itertools.product(*choices)


@pytest.mark.parametrize(("count", "seed"), [(6, 0), pytest.param(200, 1, marks=pytest.mark.slow)])
def test_sampled_points_build_with_the_counted_parameters_and_multiply_adds(count, seed):
    space, generator = SearchSpace(TINY, SearchConfig()), random.Random(seed)
    for _ in range(count):
        spec = space.spec(random_point(space, generator))
        model = build_model(spec, num_classes=7)
        counted = profile.count_parameters(spec, num_classes=7)
        trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
        assert (model.count_params(), trainable) == (counted.total, counted.trainable), spec
        size = generator.choice((32, 33, 40))
        assert counted_macs(model, size) == profile.count_macs(spec, image_size=size, num_classes=7), spec
