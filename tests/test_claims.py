"""What the claims make of their results, and which runs they leave out; nothing is trained."""

from __future__ import annotations

import json

import pytest

from benchmarks.claims import families, figures, harness, progressive, randaugment, rows, stages
from effnetv2_keras.config import Facts
from effnetv2_keras.progressive import Stage

FACTS = Facts(num_train=3068, shorter_side=400, weights=None)


def row_of(setting, seed, *, top1=0.5, seconds=600.0, epochs=60.0, base_epochs=60.0):
    curve = {"epoch": [5.0, epochs], "seconds": [seconds / 2, seconds], "top1": [0.2, top1], "top1_ema": [0.1, top1]}
    return {
        "setting": setting, "seed": seed, "base_epochs": base_epochs, "epochs": epochs, "network": harness.NETWORK,
        "parameters": 769_658, "curve": curve, "stages": [{"size": 96, "images_per_second": 200.0}], "images": 713,
        "hardware": "a processor", "tensorflow": "2.15.1", "commit": "1234567", "date": "2026-11-29",
    }  # fmt: skip


def options_of(folder, *more, claim="progressive"):
    parser = harness.make_parser(claim, None)
    given = ["--photos", "photos", "--results", str(folder), "--work", str(folder / "work"), "--seeds", "0", "1"]
    return parser.parse_args([*given, "--plot", str(folder / "plot.png"), *more])


def plan_of(setting, seed=0):
    described = {"changes": setting.changes, "constant": setting.constant, "network": setting.network.to_json()}
    config = harness.config_of(described, harness.base_config("photos", FACTS, 60), seed)
    return config, config.plan(config.total_steps(FACTS.num_train))


def test_finished_runs_are_not_repeated_and_the_others_come_seed_by_seed(tmp_path):
    rows.append(tmp_path / "progressive.jsonl", row_of("fixed", 0))
    rows.append(tmp_path / "families.jsonl", row_of("progressive-adaptive", 1))  # shared with another claim
    rows.append(tmp_path / "progressive.jsonl", row_of("progressive", 0, base_epochs=2.0))  # of a shorter training
    jobs = harness.jobs_of(options_of(tmp_path), progressive.SETTINGS)
    assert [job["seed"] for job in jobs] == [0] * 5 + [1] * 5
    assert [job["setting"] for job in jobs if job["seed"] == 1] == [
        "fixed", "progressive", "random-adaptive", "fixed-time", "progressive-adaptive-time"
    ]  # fmt: skip
    assert jobs[0]["setting"] == "progressive-adaptive"
    assert json.loads(json.dumps(jobs)) == jobs


def test_growing_sizes_keep_or_weaken_the_regularization():
    fixed, adaptive, constant, random = (plan_of(setting)[1] for setting in progressive.SETTINGS[:4])
    assert [stage.image_size for stage in fixed] == [96]
    assert [stage.image_size for stage in constant] == [stage.image_size for stage in adaptive] == [48, 64, 80, 96]
    assert {(stage.randaug_magnitude, stage.dropout_rate) for stage in constant} == {
        (fixed[0].randaug_magnitude, fixed[0].dropout_rate)
    }
    assert adaptive[0].randaug_magnitude < adaptive[1].randaug_magnitude < fixed[0].randaug_magnitude
    assert len(random) == 12
    assert all(48 <= stage.image_size <= 96 for stage in random)


def test_claims_share_runs_only_if_they_are_the_same():
    known = {}
    for setting in (*progressive.SETTINGS, *families.SETTINGS, *stages.SETTINGS, *randaugment.SETTINGS):
        assert known.setdefault(setting.name, setting) == setting
    config, plan = plan_of(randaugment.SETTINGS[0])
    assert (config.eval_size, plan[0].image_size, plan[0].randaug_magnitude) == (48, 48, 5)
    assert [stage.image_size for stage in plan_of(stages.SETTINGS[3])[1]] == [64, 75, 85, 96]


def test_epochs_in_equal_time_follow_from_the_means_of_finished_runs():
    known = [row_of("fixed", 0, seconds=900), row_of("fixed", 1, seconds=1100), row_of("progressive", 0, seconds=800)]
    assert rows.epochs_in_equal_time(known, "fixed", "progressive", 60.0) == 48.0
    with pytest.raises(ValueError, match="No finished run of progressive on this hardware; run it first"):
        rows.epochs_in_equal_time(known[:2], "fixed", "progressive", 60.0)


def test_speeds_leave_out_steps_that_trace():
    def train(stage, step, seconds, traced=0.0):
        return {
            "kind": "train", "stage": stage, "step": step, "processor_seconds": seconds, "compile_seconds": traced
        }  # fmt: skip

    metrics = [train(0, 20, 15.0, 10.0), train(0, 40, 17.0), train(0, 60, 30.0, 10.0), train(0, 80, 34.0)]
    plan = [Stage(0, 0, 80, 48, 0, 0, 0, 0), Stage(1, 80, 100, 96, 0, 0, 0, 0)]
    assert rows.speeds_of([*metrics, train(1, 100, 40.0)], plan, batch_size=30) == [
        {"size": 48, "images_per_second": 200.0},
        {"size": 96, "images_per_second": 0.0},
    ]


def test_differences_and_time_ratios_are_of_runs_with_the_same_seed(tmp_path):
    found = {
        "fixed": {0: row_of("fixed", 0, top1=0.70), 1: row_of("fixed", 1, top1=0.74), 2: row_of("fixed", 2)},
        "own": {0: row_of("own", 0, top1=0.71, seconds=300), 1: row_of("own", 1, top1=0.77, seconds=300)},
    }
    *_, fixed, own = (line.split(" | ") for line in figures.table(found, "fixed").splitlines())
    assert fixed[1:8] == ["3", "0.77", "60.0", "10.0", "", "64.7 ± 12.9", ""]
    assert own[1:9] == ["2", "0.77", "60.0", "5.0", "0.50", "74.0 ± 4.2", "+2.0 ± 1.4", "0.295"]


def test_a_report_needs_no_runs(tmp_path, capsys):
    options = options_of(tmp_path, "--report")
    figures.report(options, {"panel": {"96 px": "fixed", "growing": "progressive"}})
    assert "has no runs of 60 epochs yet" in capsys.readouterr().err
    for seed in (0, 1):
        rows.append(tmp_path / "progressive.jsonl", row_of("fixed", seed, top1=0.5 + seed / 10))
    figures.report(options, {"panel": {"96 px": "fixed", "growing": "progressive"}})
    printed = capsys.readouterr().out
    assert "| fixed | 2 | 0.77 | 60.0 | 10.0 |  | 55.0 ± 7.1 |" in printed
    assert "Images per second of processor time: 200 at 96 px." in printed
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_photographs_are_needed_to_train(tmp_path):
    options = harness.make_parser("progressive", None).parse_args(["--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="Give --photos DIR"):
        harness.run(options, progressive.SETTINGS)
