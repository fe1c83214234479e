"""The time left is right within a quarter from the second minute on, in all stages."""

from __future__ import annotations

import io
from fractions import Fraction

import pytest
import rich.console

from effnetv2_keras.basics import activity
from effnetv2_keras.config import ProgressiveConfig, ramp
from effnetv2_keras.reporting.progress import Progress
from effnetv2_keras.reporting.time_left import EVALUATING, SAVING, TimeLeft

STEPS, BATCH, EVALUATED, EVAL_SIZE = 1200, 32, 640, 320


def stages(head_steps=0):
    return ProgressiveConfig(stages=4, image_size=ramp(128, 300)).plan(STEPS, head_steps=head_steps)


def computing(stage, fixed, per_pixel):
    """Seconds of a step; if only the classifier trains, there is no backward pass, which is two thirds."""
    return (fixed + per_pixel * stage.image_size**2) * (1 / 3 if stage.trains == "classifier" else 1)


def events(plan, *, fixed, per_pixel, compiling, evaluating, saving, wait=0.0):
    """The events of a run and their seconds: (kind, stage, finished steps, seconds)."""
    for stage in plan:
        yield "compile", stage, stage.first_step, compiling
        for step in range(stage.first_step + 1, stage.end_step + 1):
            yield "step", stage, step, max(wait, computing(stage, fixed, per_pixel))
            if step % 100 == 0:
                yield SAVING, stage, step, saving
                yield EVALUATING, stage, step, evaluating
        yield SAVING, stage, stage.end_step, saving


@pytest.mark.parametrize("head_steps", [0, 300])
@pytest.mark.parametrize(
    "costs",
    [
        {"fixed": 0.0, "per_pixel": 1e-5, "compiling": 40.0, "evaluating": 20.0, "saving": 1.0},
        {"fixed": 0.3, "per_pixel": 4e-6, "compiling": 60.0, "evaluating": 30.0, "saving": 4.0},
        {"fixed": 0.05, "per_pixel": 2e-6, "compiling": 90.0, "evaluating": 10.0, "saving": 0.2},
        {"fixed": 0.02, "per_pixel": 1e-6, "compiling": 30.0, "evaluating": 9.0, "saving": 0.2, "wait": 0.5},
    ],
    ids=["by area", "large part fixed", "long compilation", "input-bound"],
)
def test_time_left_is_right_within_a_quarter_from_the_second_minute_on(costs, head_steps):
    plan = stages(head_steps)
    left = TimeLeft(
        plan, batch_size=BATCH, evaluation_period=Fraction(100), checkpoint_period=1000, evaluated=EVALUATED,
        eval_size=EVAL_SIZE,
    )  # fmt: skip
    left.tried(plan[-1], computing(plan[-1], costs["fixed"], costs["per_pixel"]))
    left.compiled(plan[-1], costs["compiling"])
    left.took(EVALUATING, costs["evaluating"])  # as tried
    happened = [event for event in events(plan, **costs) if event[:2] != ("compile", plan[-1])]
    total, now, checked = sum(seconds for *_, seconds in happened), 0.0, set()
    for kind, stage, finished, seconds in happened:
        now += seconds
        if kind == "compile":
            left.compiled(stage, seconds)
        elif kind == "step":
            compute = computing(stage, costs["fixed"], costs["per_pixel"])
            left.trained(stage, seconds, input_wait=1 - compute / seconds)
            if now > 60 and total - now > 60 and finished % 10 == 0:
                assert left.seconds(finished) == pytest.approx(total - now, rel=0.25), (stage.index, finished)
                checked.add(stage.index)
        else:
            left.took(kind, seconds)
    assert checked == {stage.index for stage in plan}


def test_time_left_is_unknown_before_the_first_step_and_zero_after_the_last():
    plan = stages()
    left = TimeLeft(
        plan, batch_size=BATCH, evaluation_period=Fraction(100), checkpoint_period=1000, evaluated=0, eval_size=320
    )
    assert left.seconds(0) is None
    left.trained(plan[0], 1.0)
    of_areas = sum(stage.num_steps * (stage.image_size / plan[0].image_size) ** 2 for stage in plan)
    assert left.seconds(0) == pytest.approx(of_areas)  # from one stage alone, time is proportional to the area
    assert left.seconds(STEPS) == 0


def test_an_evaluation_that_was_not_tried_counts_as_a_third_of_training_on_its_images():
    plan = ProgressiveConfig(stages=1, image_size=ramp(320, 320)).plan(STEPS)
    left = TimeLeft(
        plan, batch_size=BATCH, evaluation_period=Fraction(STEPS), checkpoint_period=STEPS, evaluated=EVALUATED,
        eval_size=EVAL_SIZE,
    )  # fmt: skip
    left.trained(plan[0], 2.0)
    assert left.seconds(STEPS // 2) == pytest.approx(STEPS // 2 * 2.0 + EVALUATED / BATCH * 2.0 / 3)


def test_the_bar_shows_what_takes_longer_than_a_moment(monkeypatch):
    output = io.StringIO()
    bar = Progress(stages(), rich.console.Console(file=output, force_terminal=True, width=120))
    monkeypatch.setattr("effnetv2_keras.reporting.progress._MOMENT", 0.0)
    with bar.shown(), activity.doing("the next stage"):
        bar.advance(stages()[1], 301)
        with activity.doing("saving a checkpoint"):
            bar._bar.refresh()
    assert "301/1200\x1b[0m saving a checkpoint · 0 s" in output.getvalue()
