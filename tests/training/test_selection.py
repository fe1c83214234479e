from __future__ import annotations

import pytest
import tensorflow as tf

from effnetv2_keras.config import TrainConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models import build_model, set_trainable
from effnetv2_keras.training.selection import moved_variables, split_by_decay
from tests.names import names_of
from tests.tiny import TINY

EXCLUDE = TrainConfig().weight_decay_exclude


@pytest.fixture(params=[None, "left"])
def model(request):
    """A name in front of the layers changes no canonical name."""
    return build_model(TINY, num_classes=3, name=request.param)


def canonical(model, variables):
    prefix = model.layers[0].name.removesuffix("image")
    return [name.removeprefix(prefix) for name in names_of(model, variables)]


@pytest.mark.parametrize("varsexp", [None, ".*", ""])
def test_everything_moves(model, varsexp):
    assert canonical(model, moved_variables(model, varsexp)) == canonical(model, model.trainable_variables)


@pytest.mark.parametrize(
    ("varsexp", "names"),
    [
        ("classifier", ["classifier/kernel", "classifier/bias"]),
        ("stem/.*/(gamma|beta)", ["stem/norm/gamma", "stem/norm/beta"]),
        (r"block_[34]/depthwise/conv|classifier/bias$", [
            "block_3/depthwise/conv/depthwise_kernel", "block_4/depthwise/conv/depthwise_kernel", "classifier/bias",
        ]),
        (".*reduce/bias", ["block_3/squeeze_excite/reduce/bias", "block_4/squeeze_excite/reduce/bias"]),
    ],
)  # fmt: skip
def test_expression_is_matched_from_the_start(model, varsexp, names):
    assert canonical(model, moved_variables(model, varsexp)) == names


@pytest.mark.parametrize("varsexp", ["kernel", "stem/norm/moving_mean", "lassifier"])
def test_nothing_matches(model, varsexp):
    message = (
        f"train.varsexp is '{varsexp}', which matches none of the 49 trainable variables of '{model.name}'. "
        "Use a regular expression that matches from the start of names such as "
        "'stem/conv/kernel', .*, 'classifier/bias'"
    )
    with pytest.raises(UsageError, match=message):
        moved_variables(model, varsexp)


def test_frozen_layers_neither_move_nor_decay(model):
    set_trainable(model, trainable_from="head")
    names = ["head/conv/kernel", "head/norm/gamma", "head/norm/beta", "classifier/kernel", "classifier/bias"]
    assert canonical(model, moved_variables(model, ".*")) == names
    decayed, others = split_by_decay(model, EXCLUDE)
    assert canonical(model, decayed) == names[::3]
    assert canonical(model, others) == [names[1], names[2], names[4]]
    with pytest.raises(UsageError, match="matches none of the 5 trainable"):
        moved_variables(model, "stem")


def test_kernels_decay_and_nothing_else(model):
    decayed, others = split_by_decay(model, EXCLUDE)
    kinds = [{name.rsplit("/", 1)[1] for name in canonical(model, part)} for part in (decayed, others)]
    assert kinds == [{"kernel", "depthwise_kernel"}, {"bias", "gamma", "beta"}]
    assert len(decayed) + len(others) == len(model.trainable_variables)


def test_exclusion_is_matched_from_the_start(model):
    decayed, others = split_by_decay(model, "bias|stem|.*depthwise_kernel$")
    assert canonical(model, others) == [
        "stem/conv/kernel", "stem/norm/gamma", "stem/norm/beta",
        "block_3/depthwise/conv/depthwise_kernel", "block_4/depthwise/conv/depthwise_kernel",
    ]  # fmt: skip
    assert "classifier/bias" in canonical(model, decayed)


def test_none_excludes_nothing(model):
    decayed, others = split_by_decay(model, None)
    assert canonical(model, decayed) == canonical(model, model.trainable_variables)
    assert others == []


def test_variables_of_replicas(two_replicas):
    with two_replicas.scope():
        model = build_model(TINY, num_classes=3)
    assert len(moved_variables(model, "classifier")) == 2
    assert all(isinstance(variable, tf.distribute.DistributedValues) for variable in moved_variables(model, None))
