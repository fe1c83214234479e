from __future__ import annotations

import math
import typing

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras import config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.optim import schedules
from effnetv2_keras.training import state

IMAGENET = {
    "peak": 0.256, "total_steps": 107336, "steps_per_epoch": 1256144 / 4096, "warmup_epochs": 5,
    "decay_epochs": 2.4, "decay_factor": 0.97, "floor": 0.0,
}  # fmt: skip
IMAGENET21K = {**IMAGENET, "peak": 0.128, "total_steps": 186332, "steps_per_epoch": 12720275 / 4096, "warmup_epochs": 1}
PLAIN = {**IMAGENET, "peak": 2.0, "total_steps": 1000, "steps_per_epoch": 10.0, "warmup_epochs": 0}


# Learning rates that the reference code gave when it was run, to all the digits that it printed.
@pytest.mark.parametrize(
    ("step", "printed"),
    [
        (0, "0"), (1, "1.669928e-4"), (500, ".0834964"), (1532, ".2558330"), (1533, ".2408704"), (2208, ".2408704"),
        (2209, ".2336443"), (26834, ".0855112"), (53668, ".0285631"), (107335, ".00309132"),
    ],
)  # fmt: skip
def test_exponential_is_that_of_the_reference_code(step, printed):
    rate = float(schedules.make_schedule("exponential", **IMAGENET)(step))
    assert f"{rate:.5e}" == f"{float(printed):.5e}"


@pytest.mark.parametrize(
    ("step", "printed"),
    [(1000, ".0412238"), (3104, ".1279588"), (3105, ".1279123"), (93168, ".0639978"), (186332, "0")],
)
def test_cosine_is_that_of_the_reference_code(step, printed):
    assert float(schedules.make_schedule("cosine", **IMAGENET21K)(step)) == pytest.approx(float(printed), abs=5.1e-8)


FINETUNING = "train.epochs=15,train.min_steps=10000,train.batch_size=512,train.lr_base=0.0005,train.lr_sched=constant"


# The reference code's runs: recipe, training images, and then the steps, of which warm-up, and the peak.
@pytest.mark.parametrize(
    ("settings", "num_train", "total", "warmup", "peak"),
    [
        ("train.epochs=350,train.batch_size=4096,train.lr_base=0.016", 1_256_144, 107_336, 1533, 0.256),
        ("train.epochs=60,train.batch_size=4096,train.lr_base=0.008", 12_720_275, 186_332, 3105, 0.128),
        (FINETUNING, 1_256_144, 36_801, 2453, 0.001),  # ImageNet
        (FINETUNING, 50_000, 10_000, 97, 0.001),  # CIFAR
        (FINETUNING, 1020, 10_000, 1, 0.001),  # Flowers
        (FINETUNING, 2569, 10_000, 5, 0.001),  # TensorFlow's flowers
        (FINETUNING, 8144, 10_000, 15, 0.001),  # Cars
    ],
)
def test_lengths_of_the_runs_of_the_reference_code(settings, num_train, total, warmup, peak):
    epochs = "5" if "epochs=350" in settings else "1"
    run = config.Config().override(parse_overrides(f"{settings},train.lr_warmup_epoch={epochs}"))
    assert run.total_steps(num_train) == total
    steps_per_epoch = num_train / run.train.batch_size
    schedule = state.schedule_for(run, steps_per_epoch=steps_per_epoch, total_steps=total)
    assert schedule.warmup_steps == warmup
    assert float(schedule(warmup)) == pytest.approx(peak, rel=0.06)  # exponential has decayed twice by then
    assert schedule.peak == pytest.approx(peak)
    assert [float(schedule(step)) for step in (0, 1)] == pytest.approx([0.0, peak / warmup])


def by_the_formulas(name, step, *, peak, total, spe, warmup_epochs, decay_epochs, factor, floor):
    """The reference code's rules, written out once more with Python's own numbers."""
    rate = {
        "exponential": lambda: peak * factor ** math.floor(step / (decay_epochs * spe)),
        "cosine": lambda: 0.5 * peak * (1 + math.cos(math.pi * step / total)),
        "linear": lambda: peak * (1 - step / total),
        "constant": lambda: peak,
    }[name]()
    rate = max(rate, floor) if floor else rate
    warmup = math.floor(warmup_epochs * spe)
    return peak * step / warmup if warmup_epochs and step < warmup else rate


@pytest.mark.parametrize("floor", [0.0, 0.02])
@pytest.mark.parametrize("warmup", [0.0, 2.7])
@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
def test_every_step_follows_the_formulas(name, warmup, floor):
    """Settings per 256 images, as a configuration gives them; the batch is 64."""
    run = config.Config().override(parse_overrides(
        f"train.lr_sched={name},train.lr_warmup_epoch={warmup},train.lr_min={floor},train.lr_base=0.4,"
        "train.batch_size=64,train.lr_decay_epoch=1.3,train.lr_decay_factor=0.9"
    ))  # fmt: skip
    schedule = state.schedule_for(run, steps_per_epoch=18.75, total_steps=300)
    settings = {"peak": 0.1, "total": 300, "spe": 18.75, "warmup_epochs": warmup, "decay_epochs": 1.3, "factor": 0.9}
    expected = [by_the_formulas(name, step, **settings, floor=floor / 4) for step in range(301)]
    np.testing.assert_allclose(schedule(np.arange(301)), expected, rtol=1e-6, atol=1e-9)


def test_weight_decay_grows_evenly():
    decay = schedules.WeightDecay(1e-5, increase=2.0, total_steps=1000)
    assert [float(decay(step)) for step in (0, 250, 1000)] == pytest.approx([1e-5, 1.5e-5, 3e-5])
    assert decay(tf.Variable(3, dtype=tf.int64)).dtype == tf.float32
    assert float(schedules.WeightDecay(1e-5)(10**6)) == pytest.approx(1e-5)


def test_staircase_turns_at_the_exact_step():
    # A decay every 2.4 * 1281167 / 4096 steps. In float32 it would come a step early or late 41 times in a million
    # steps, the first time at 87830.
    settings = {**IMAGENET, "steps_per_epoch": 1281167 / 4096, "warmup_epochs": 0, "decay_factor": 0.999}
    turns = np.arange(1, 1300)
    first = -(-turns * 24 * 1281167 // (10 * 4096))  # the quotient rounded up, in whole numbers
    schedule = schedules.make_schedule("exponential", **settings)
    np.testing.assert_allclose(schedule(first), 0.256 * np.float64(np.float32(0.999)) ** turns, rtol=1e-6)
    np.testing.assert_allclose(schedule(first - 1), 0.256 * np.float64(np.float32(0.999)) ** (turns - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "start", "middle", "end"),
    [("cosine", 2.0, 1.0, 0.0), ("linear", 2.0, 1.0, 0.0), ("constant", 2.0, 2.0, 2.0)],
)
def test_ends_and_middle(name, start, middle, end):
    schedule = schedules.make_schedule(name, **PLAIN)
    assert [float(schedule(step)) for step in (0, 500, 1000, 1001, 2000)] == pytest.approx(
        [start, middle, end, end, end]
    )


def test_cosine_falls_slowly_at_both_ends_and_linear_does_not():
    cosine, linear = (schedules.make_schedule(name, **PLAIN) for name in ("cosine", "linear"))
    assert float(cosine(250)) == pytest.approx(1 + 2**-0.5)
    assert float(linear(250)) == pytest.approx(1.5)


@given(
    name=st.sampled_from(sorted(schedules.SCHEDULES)),
    warmup=st.integers(0, 40),
    floor=st.sampled_from([0.0, 0.3]),
    step=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_laws(name, warmup, floor, step):
    schedule = schedules.WarmupSchedule(name, 2.0, 100, warmup, 7.5, 0.9, floor)
    now, then = float(schedule(step)), float(schedule(step + 1))
    assert 0.0 <= now <= 2.0
    if step + 1 < warmup:
        assert then - now == pytest.approx(2.0 / warmup, rel=1e-5)
    elif step >= warmup:
        assert floor <= then + 1e-7
        assert then <= now
        # Apart from the stairs, there are no jumps: a step changes the rate by at most pi / 2 of the mean slope.
        assert name == "exponential" or now - then <= 2.0 * 3.1416 / 2 / 100


def test_warm_up_goes_below_the_floor():
    schedule = schedules.make_schedule("linear", **{**PLAIN, "warmup_epochs": 1, "floor": 0.5})
    assert [float(schedule(step)) for step in (0, 1, 9, 900)] == pytest.approx([0.0, 0.2, 1.8, 0.5])


def test_warm_up_rounds_down_to_whole_steps():
    schedule = schedules.make_schedule("constant", **{**PLAIN, "steps_per_epoch": 15.9, "warmup_epochs": 1})
    assert schedule.warmup_steps == 15
    assert float(schedule(15)) == 2.0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_same_in_a_graph(jit_compile):
    schedule = schedules.make_schedule("exponential", **IMAGENET)
    rate = tf.function(schedule, jit_compile=jit_compile)(tf.Variable(2209, dtype=tf.int64))
    assert rate.dtype == tf.float32
    assert float(rate) == float(schedule(2209))


def test_config_round_trip():
    schedule = schedules.make_schedule("cosine", **IMAGENET21K)
    again = tf.keras.optimizers.schedules.deserialize(tf.keras.optimizers.schedules.serialize(schedule))
    assert type(again) is schedules.WarmupSchedule
    assert again.get_config() == schedule.get_config()
    assert float(again(93168)) == float(schedule(93168))


def test_every_name_of_the_configuration_exists():
    field = config.TrainConfig.model_fields["lr_sched"]
    assert set(schedules.SCHEDULES) == set(typing.get_args(field.annotation))


def test_unknown_name():
    with pytest.raises(ValueError, match="Unknown learning-rate schedule 'step'; use one of: exponential, cosine"):
        schedules.make_schedule("step", **PLAIN)


@pytest.mark.parametrize("change", [{"total_steps": 0}, {"steps_per_epoch": 0.0}])
def test_no_steps(change):
    with pytest.raises(ValueError, match="must be positive"):
        schedules.make_schedule("cosine", **{**PLAIN, **change})


def test_a_scaled_schedule_follows_its_variable():
    schedule, scale = schedules.WarmupSchedule("linear", 0.4, 10, 0, 1.0, 1.0, 0.0), tf.Variable(0.25)
    scaled = schedules.ScaledSchedule(schedule, scale)
    assert float(scaled(5)) == pytest.approx(0.25 * 0.2)
    scale.assign(2.0)
    assert float(scaled(5)) == pytest.approx(2 * 0.2)
