import math
import pathlib
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import effnetv2_keras
import hparams.base
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import QUANTITIES, Ramp, Ramps, plan_stages, remaining

PACKAGE = pathlib.Path(effnetv2_keras.__file__).parent


def make_ramps(**changes):
    ramps = {
        "image_size": Ramp(128, 300),
        "randaug_magnitude": Ramp(5, 15),
        "mixup_alpha": Ramp(0, 0.2),
        "cutmix_alpha": Ramp(0, 0),
        "dropout_rate": Ramp(0.1, 0.3),
    }
    return Ramps(**{**ramps, **changes})


def test_a_quantity_without_a_ramp_has_its_default():
    ramps = Ramps(image_size=Ramp(32, 64))
    assert ramps["image_size"] == Ramp(32, 64)
    assert {name: ramps[name] for name in ramps if name != "image_size"} == {
        name: quantity.default for name, quantity in QUANTITIES.items() if name != "image_size"
    }
    with pytest.raises(UsageError, match="Ramps got sise; it knows image_size, randaug_magnitude, "):
        Ramps(sise=Ramp(32, 64))


def planned(model_name, field):
    stages = hparams.base.progressive_of(model_name).plan(total_steps=1000)
    return [pytest.approx(getattr(stage, field), abs=0.006) for stage in stages]


@pytest.mark.parametrize(
    ("model_name", "sizes", "magnitudes", "alphas", "dropouts"),
    [  # Algorithm 1 applied to Table 6 of the paper
        ("efficientnetv2-s", [128, 185, 243, 300], [5, 8.33, 11.67, 15], [0, 0, 0, 0], [0.1, 0.167, 0.233, 0.3]),
        ("efficientnetv2-m", [128, 212, 296, 380], [5, 10, 15, 20], [0, 0.067, 0.133, 0.2], [0.1, 0.2, 0.3, 0.4]),
        ("efficientnetv2-l", [128, 212, 296, 380], [5, 11.67, 18.33, 25], [0, 0.133, 0.267, 0.4],
         [0.1, 0.233, 0.367, 0.5]),
    ],
)  # fmt: skip
def test_paper_stages(model_name, sizes, magnitudes, alphas, dropouts):
    assert planned(model_name, "image_size") == sizes
    assert planned(model_name, "randaug_magnitude") == magnitudes
    assert planned(model_name, "mixup_alpha") == alphas
    assert planned(model_name, "dropout_rate") == dropouts


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [  # observed in the reference code
        (Ramp(128, 300), [171, 214, 257, 300]),
        (Ramp(128, 384), [192, 256, 320, 384]),
        (Ramp(128, 208), [148, 168, 188, 208]),
        (Ramp(128, 240), [156, 184, 212, 240]),
    ],
)
def test_original_sizes(image_size, expected):
    stages = plan_stages(make_ramps(image_size=image_size), num_stages=4, total_steps=107336, schedule="original")
    assert [stage.image_size for stage in stages] == expected
    assert [stage.end_step for stage in stages] == [26834, 53668, 80502, 107336]
    assert [stage.randaug_magnitude for stage in stages] == pytest.approx([5, 8.3333, 11.6667, 15], abs=1e-4)


def test_one_stage_trains_at_the_final_settings():
    (stage,) = plan_stages(make_ramps(), num_stages=1, total_steps=10)
    assert (stage.image_size, stage.randaug_magnitude, stage.dropout_rate) == (300, 15, 0.3)


@given(num_stages=st.integers(1, 40), extra=st.integers(0, 100_000), multiple=st.integers(1, 64))
def test_stages_partition_the_steps(num_stages, extra, multiple):
    total = num_stages + extra
    stages = plan_stages(make_ramps(), num_stages=num_stages, total_steps=total, size_multiple=multiple)
    assert [step for stage in stages for step in (stage.first_step, stage.end_step)][1:-1] == [
        step for stage in stages[1:] for step in (stage.first_step, stage.first_step)
    ]
    assert (stages[0].first_step, stages[-1].end_step) == (0, total)
    lengths = [stage.num_steps for stage in stages]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert all(stage.image_size % multiple == 0 and stage.image_size > 0 for stage in stages)


@given(
    num_stages=st.integers(1, 60),
    extra=st.integers(0, 100_000),
    schedule=st.sampled_from(["paper", "original"]),
    ends=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_rising_stages_are_read_at_evenly_spaced_places(num_stages, extra, schedule, ends):
    """Bit for bit: a resumed run must have the same plan."""
    (start, end), ramps = ends, make_ramps(image_size=Ramp(*ends))
    stages = plan_stages(ramps, num_stages=num_stages, total_steps=num_stages + extra, schedule=schedule, seed=5)
    for index, stage in enumerate(stages):
        share = index / (num_stages - 1) if num_stages > 1 else 1.0
        grown = (end - start) * share if schedule == "paper" else (end - start) * (index + 1) / num_stages
        size = start + grown if schedule == "paper" else math.floor(start + grown)
        assert stage.image_size == max(1, math.floor(size + 0.5))
        for name in ("randaug_magnitude", "mixup_alpha", "cutmix_alpha", "dropout_rate"):
            ramp = ramps[name]
            assert getattr(stage, name) == ramp.start + (ramp.end - ramp.start) * share


@given(
    num_stages=st.integers(1, 60), extra=st.integers(0, 10_000), seed=st.integers(0, 2**31 - 1), swapped=st.booleans()
)
def test_random_stages_share_one_place_on_all_ramps(num_stages, extra, seed, swapped):
    ends = (300, 128) if swapped else (128, 300)
    ramps = make_ramps(image_size=Ramp(*ends), cutmix_alpha=Ramp(1, 0), mixup_alpha=Ramp(0.2, 0.2))
    total = num_stages + extra

    def planned():
        return plan_stages(ramps, num_stages=num_stages, total_steps=total, order="random", seed=seed)

    stages = planned()
    assert stages == planned()
    rising = plan_stages(ramps, num_stages=num_stages, total_steps=total)
    assert [(stage.index, stage.first_step, stage.end_step) for stage in stages] == [
        (stage.index, stage.first_step, stage.end_step) for stage in rising
    ]
    for stage in stages:
        place = (stage.randaug_magnitude - 5) / 10
        assert 0 <= place <= 1
        assert stage.image_size == pytest.approx(ends[0] + (ends[1] - ends[0]) * place, abs=0.5 + 1e-9)
        assert stage.dropout_rate == pytest.approx(0.1 + 0.2 * place)
        assert stage.cutmix_alpha == pytest.approx(1 - place)
        assert stage.mixup_alpha == 0.2
    if num_stages == 1:
        assert stages[0].image_size == ends[1]


def test_random_sizes_are_drawn_from_the_seed():
    def sizes(seed, **changes):
        arguments = {"num_stages": 44, "total_steps": 44, "order": "random", **changes}
        return [stage.image_size for stage in plan_stages(make_ramps(), seed=seed, **arguments)]

    assert sizes(0)[:6] == [273, 258, 200, 173, 216, 198]  # must never change: a resumed run needs the same plan
    assert sizes(0) != sizes(1)
    assert min(sizes(0)) < 150
    assert max(sizes(0)) > 280
    assert sizes(0) != sorted(sizes(0))
    assert all(size % 32 == 0 and 128 <= size <= 288 for size in sizes(0, size_multiple=32))


@given(
    start=st.floats(0, 1000),
    end=st.floats(0, 1000),
    count=st.integers(1, 50),
)
def test_ramps_are_monotone_and_end_at_their_end_value(start, end, count):
    ramps = make_ramps(mixup_alpha=Ramp(start, end))
    values = [stage.mixup_alpha for stage in plan_stages(ramps, num_stages=count, total_steps=count)]
    steps = [later - earlier for earlier, later in zip(values, values[1:])]
    assert all(step * (end - start) >= -1e-9 for step in steps)
    assert values[-1] == pytest.approx(end)
    assert count == 1 or values[0] == start


@given(num_stages=st.integers(1, 9), extra=st.integers(0, 200), data=st.data())
def test_remaining_is_the_rest_of_the_plan(num_stages, extra, data):
    stages = plan_stages(make_ramps(), num_stages=num_stages, total_steps=num_stages + extra)
    total = stages[-1].end_step
    step = data.draw(st.integers(0, total))
    left = list(remaining(stages, step=step))
    assert [number for _, steps in left for number in steps] == list(range(step, total))
    assert all(steps and stage.first_step <= steps[0] and steps[-1] < stage.end_step for stage, steps in left)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_stages": 4, "total_steps": 3}, "4 stages need at least 4 steps, but the run has 3"),
        ({"num_stages": 0, "total_steps": 3}, "num_stages is 0; it must be at least 1"),
        ({"num_stages": 1, "total_steps": 3, "schedule": "papr"}, "Unknown stage schedule 'papr'; use one of: paper"),
        (
            {"num_stages": 1, "total_steps": 3, "order": "falling"},
            "Unknown order of stages 'falling'; use one of: rising",
        ),
        (
            {"num_stages": 2, "total_steps": 3, "schedule": "original", "order": "random"},
            "order is 'random', but the size ramp of schedule='original' only rises; use schedule='paper'",
        ),
        ({"num_stages": 1, "total_steps": 3, "size_multiple": 0}, "size_multiple is 0"),
    ],
)
def test_bad_plans_say_why(arguments, message):
    with pytest.raises(UsageError, match=message):
        plan_stages(make_ramps(), **arguments)


@pytest.mark.parametrize(
    ("field", "ramp"),
    [
        ("dropout_rate", Ramp(0.1, 1.0)),
        ("mixup_alpha", Ramp(-0.1, 0.2)),
        ("randaug_magnitude", Ramp(5, 31)),
        ("image_size", Ramp(0, 300)),
    ],
)
def test_ramps_out_of_range_are_refused(field, ramp):
    with pytest.raises(UsageError, match=f"{field} goes from {ramp.start} to {ramp.end}; it must stay in"):
        make_ramps(**{field: ramp})


def test_ramps_must_be_finite():
    with pytest.raises(UsageError, match="both ends must be finite"):
        Ramp(0, float("nan"))


def test_remaining_refuses_a_step_outside_the_plan():
    stages = plan_stages(make_ramps(), num_stages=2, total_steps=10)
    with pytest.raises(UsageError, match="Step 11 is outside the plan, which has 10 steps"):
        list(remaining(stages, step=11))


ANOTHER_QUANTITY = """
    cutout_share: Annotated[
        float, Quantity("covered by cutout", Ramp(0, 0.5), heading="cutout", unit="share", source="reference code")
    ]
"""
USES_IT = """
from effnetv2_keras.config import Config
from effnetv2_keras.reporting.plots import regularizers
from effnetv2_keras.reporting.tables import STAGE_HEADINGS, stage_cells

config = Config().override({"progressive.cutout_share.end": "0.75"})
assert Config.from_yaml(config.to_yaml()) == config
first, *_, last = config.plan(100)
assert (first.cutout_share, last.cutout_share) == (0.0, 0.75)
assert dict(zip(STAGE_HEADINGS, stage_cells(last)))["cutout"] == "0.75"
assert "cutout 0.75" in regularizers(last)
"""


def test_a_new_quantity_is_one_row(tmp_path):
    """One declaration gives a quantity its settings, its value in every stage, and its place in tables and plots."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / PACKAGE.name / "progressive.py"
    text = module.read_text()
    module.write_text(text.replace("    trains: Trained", f"{ANOTHER_QUANTITY[1:]}    trains: Trained"))
    done = subprocess.run([sys.executable, "-c", USES_IT], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_a_recipe_the_ramps_are_those_of_the_paper():
    """Table 6, V2-S, with an end of 224 px; sizes of a variant replace both ends."""
    ramps = {name: (quantity.default.start, quantity.default.end) for name, quantity in QUANTITIES.items()}
    assert ramps == {
        "image_size": (128, 224), "randaug_magnitude": (5, 15), "mixup_alpha": (0, 0), "cutmix_alpha": (0, 0),
        "dropout_rate": (0.1, 0.3),
    }  # fmt: skip
