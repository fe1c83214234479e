from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.ablations import display, harness, table_2, table_3, table_5, table_10_11, table_12, table_13, table_14
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage
from tests.short_runs import SETTINGS, undrawn
from tests.tiny import SMALL


def arguments_of(folder, **changes):
    given = {
        "dataset_cfg": "demo", "data_dir": None, "model_names": (), "seeds": (0, 1), "hparam_str": "",
        "output_dir": str(folder), "strategy": "cpu", "sizes": (), "first_sizes": (), "stages": (4, 8, 16),
        "first_size": None, "last_size": None, "random_stages": None, "magnitudes": table_5.MAGNITUDES,
        "table": "10", "kernel_size": None,
    }  # fmt: skip
    return argparse.Namespace(**{**given, **changes})


def differences(module, folder, **changes):
    """Returns the settings, and the differences of each configuration to the first."""
    arguments = arguments_of(folder, **changes)
    settings = module.make_settings(arguments)
    first, *others = (harness.config_of(arguments, setting, 0) for setting in settings)
    return settings, [{key: ours for key, (ours, _) in other.differences(first).items()} for other in others]


def test_table_2_changes_only_the_train_size(tmp_path):
    _, (small,) = differences(table_2, tmp_path)
    assert small == {"progressive.image_size.start": 32.0, "progressive.image_size.end": 32.0}


def test_table_3_changes_only_the_network(tmp_path):
    settings, others = differences(table_3, tmp_path)
    # The recipes give every variant the settings of its table, so that the demo's differ by the network only.
    assert [set(other) for other in others] == [{"model.model_name", "model.network"}] * 3
    assert settings[1].paper["time ratio"] == round(155 / 216, 2)


def test_table_5_crosses_magnitudes_with_sizes(tmp_path):
    settings, others = differences(table_5, tmp_path)
    assert len(settings) == 9
    assert others[0] == {"progressive.image_size.start": 36.0, "progressive.image_size.end": 36.0}
    assert others[2] == {"progressive.randaug_magnitude.start": 10.0, "progressive.randaug_magnitude.end": 10.0}
    assert settings[5].paper == {"top-1": 82.7}
    assert settings[5].name == "magnitude 10, 48 px"


@pytest.mark.parametrize("table", ["10", "11"])
def test_tables_10_and_11_change_only_the_network(tmp_path, table):
    _, (other,) = differences(table_10_11, tmp_path, table=table)
    assert set(other) == {"model.model_name", "model.network"}
    paper = arguments_of(tmp_path, table=table, dataset_cfg="imagenet")
    stages = {harness.config_of(paper, one, 0).progressive.stages for one in table_10_11.make_settings(paper)}
    assert stages == ({4} if table == "10" else {1})


def test_table_10_gives_both_networks_the_stages_of_v2(tmp_path):
    _, (other,) = differences(table_10_11, tmp_path, dataset_cfg="imagenet")
    assert other == {"model.model_name": "efficientnetv2-m"}


def test_an_odd_number_of_networks_is_refused(tmp_path):
    with pytest.raises(UsageError, match="compared in pairs"):
        table_10_11.make_settings(arguments_of(tmp_path, model_names=("efficientnet-b0",)))


def test_table_12_compares_all_stages_with_only_the_last(tmp_path):
    settings, others = differences(table_12, tmp_path)
    assert others[0] == {"progressive.stages": 4}
    assert settings[1].reference == settings[0].name
    arguments = arguments_of(tmp_path)
    baseline, progressive = (harness.config_of(arguments, setting, 0).plan(400)[-1] for setting in settings[:2])
    assert baseline.image_size == progressive.image_size == 64
    assert baseline.randaug_magnitude == progressive.randaug_magnitude == 10
    paper = table_12.make_settings(arguments_of(tmp_path, dataset_cfg="imagenet"))
    assert paper[3].paper == {"top-1": 80.3, "hours": 5.8, "time ratio": 0.41}
    assert (
        harness.config_of(arguments_of(tmp_path, dataset_cfg="imagenet"), paper[3], 0).plan(400)[-1].image_size == 380
    )


def test_table_13_changes_order_and_ramps(tmp_path):
    _, (adaptive, random_vanilla, random_adaptive) = differences(table_13, tmp_path)
    ramps = {"progressive.randaug_magnitude.start": 2.0, "progressive.dropout_rate.start": 0.05}
    order = {"progressive.order": "random", "progressive.stages": 8}
    assert (adaptive, random_vanilla, random_adaptive) == (ramps, order, {**ramps, **order})


def test_table_14_crosses_first_sizes_with_numbers_of_stages(tmp_path):
    settings, others = differences(table_14, tmp_path)
    assert others[0] == {"progressive.stages": 8}
    assert others[2] == {"progressive.image_size.start": 40.0}
    assert others[4] == {"progressive.image_size.start": 40.0, "progressive.stages": 16}
    assert settings[5].paper == {"top-1": 83.23, "hours": 9.4, "time ratio": 1.52}


def test_two_networks_for_a_table_of_one_are_refused(tmp_path):
    with pytest.raises(UsageError, match="about one network"):
        table_13.make_settings(arguments_of(tmp_path, model_names=("a", "b")))


def test_figures_separate_tracing_from_steps():
    def row(stage, seconds, speed, traced):
        return {
            "kind": "train",
            "stage": stage,
            "seconds": seconds,
            "images_per_second": speed,
            "compile_seconds": traced,
        }

    rows = [
        row(0, 5.0, 0.0, 4.0), row(0, 6.0, 10.0, 0.0), row(0, 7.0, 20.0, 0.0), row(0, 8.0, 40.0, 0.0),
        row(1, 15.0, 5.0, 6.0), {"kind": "eval", "seconds": 15.1, "top1": 0.5, "top1_ema": 0.75},
    ]  # fmt: skip
    stages = [Stage(0, 0, 10, 10, 0, 0, 0, 0), Stage(1, 10, 15, 20, 0, 0, 0, 0)]
    figures = harness.figures_of(rows, stages, batch_size=2)
    assert figures == {
        "top1": 75.0, "top1_raw": 50.0, "seconds": 15.0, "trace_seconds": 10.0,
        "step_seconds": 10 * 2 / 20 + 5 * 2 / 5, "fastest_seconds": 10 * 2 / 40 + 5 * 2 / 5,
        "gigapixels": (10 * 100 + 5 * 400) * 2 / 1e9,
    }  # fmt: skip
    assert harness.figures_of(rows[:4] + rows[5:], stages, 2)["step_seconds"] == 8.0 - 4.0  # the last is too short


def test_ratios_are_computed_separately_for_each_seed(tmp_path):
    def figures(seconds):
        return {
            "top1": seconds, "seconds": seconds, "step_seconds": seconds / 2, "fastest_seconds": 2.0, "gigapixels": 1.0
        }  # fmt: skip

    settings = [
        harness.Setting("whole", "x", {}, {"top-1": 80.0}),
        harness.Setting("half", "x", {}, {"top-1": 81.0, "time ratio": 0.4}, reference="whole"),
    ]
    rows = harness.summarize(settings, {"whole": [figures(10.0), figures(40.0)], "half": [figures(5.0), figures(30.0)]})
    assert rows[0]["time_ratio"] == {"mean": 1.0, "std": 0.0}
    assert rows[1]["time_ratio"]["mean"] == 0.625  # of 0.5 and 0.75
    assert rows[1]["time_ratio"]["std"] == pytest.approx(0.25 / 2**0.5)
    assert rows[1]["top1"]["mean"] == 17.5
    display.plot(rows, "made up", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "plot.png").stat().st_size < 60_000


@pytest.mark.slow
def test_a_run_is_not_repeated(tmp_path, capsys, monkeypatch):
    from effnetv2_keras.training import loop

    (tmp_path / "tiny.json").write_text(SMALL.to_json())
    arguments = arguments_of(
        tmp_path / "out",
        seeds=(3,),
        model_names=(str(tmp_path / "tiny.json"),),
        hparam_str=f"{SETTINGS},data.augment=none,train.epochs=1,train.batch_size=500,eval.batch_size=500,eval.every_epochs=9",
    )
    settings = [harness.Setting("a setting, tiny", arguments.model_names[0], {})]
    with undrawn():
        harness.report(arguments, "0", "tiny", settings)
    first = capsys.readouterr().out
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("trained again"))
    harness.report(arguments, "0", "tiny", settings)
    assert capsys.readouterr().out == first
    (row,) = json.loads(first.splitlines()[-1])["settings"]
    assert row["runs"] == 1
    assert row["gigapixels"]["mean"] > 0
    assert "stage 1/2" in (tmp_path / "out" / "a_setting_tiny" / "seed_3.log").read_text()
    assert json.loads((tmp_path / "out" / "table_0.json").read_text())["settings"] == [row]
