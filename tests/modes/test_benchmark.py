"""The benchmark: what it measures and how it tells."""

from __future__ import annotations

import io
import json
import pathlib

import numpy as np
import pytest
import rich.console

from effnetv2_keras.config import Config
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.export import ExportError, export_model
from effnetv2_keras.modes import benchmark
from effnetv2_keras.modes.benchmark import Benchmark, Row
from effnetv2_keras.runs.trained import Trained
from tests.tiny import TINY


@pytest.fixture(scope="module")
def trained() -> Trained:
    return benchmark.fresh(Config().override({"eval.isize": 40}).with_network(TINY), num_classes=7)


@pytest.mark.slow
def test_measures_each_format_at_each_batch_size_in_its_own_process(trained: Trained):
    result = benchmark.benchmark(
        trained, formats=["tflite", "keras"], quantize="float16", batch_sizes=[48, 1], repeats=5
    )
    assert (result.model_name, result.image_size, result.repeats) == ("tiny", 40, 5)
    assert [(row.format, row.batch_size) for row in result.rows] == [
        ("tflite float16", 1), ("tflite float16", 48), ("keras", 1), ("keras", 48)
    ]  # fmt: skip
    for row in result.rows:
        assert 0 < row.median_ms <= row.p90_ms < 10_000
        assert row.images_per_second == pytest.approx(1000 * row.batch_size / row.median_ms)
    for one, many in (result.rows[:2], result.rows[2:]):
        assert one.peak_megabytes <= many.peak_megabytes
    assert 50 < result.bare_megabytes < min(row.peak_megabytes for row in result.rows)
    assert result.megabytes["keras"] > result.megabytes["tflite float16"] > 0


def test_a_call_runs_the_export_on_as_many_images(trained: Trained, tmp_path: pathlib.Path, monkeypatch):
    export_model(trained, tmp_path / "keras", format_name="keras")
    seen = []
    monkeypatch.setattr(benchmark, "seconds_of", lambda runtime, images: seen.append(runtime(images)) or 0.25)
    seconds, megabytes = benchmark._call("keras", str(tmp_path / "keras"), 40, 3)
    assert (seconds, seen[0].shape) == (0.25, (3, 7))
    images = benchmark.random_images(3, 40, 40)
    np.testing.assert_allclose(seen[0], trained.model(images, training=False), atol=1e-5)
    assert megabytes > 50


def test_a_row_gives_percentiles():
    row = benchmark._row("keras", 4, [0.01 * number for number in range(1, 12)], 500.0)
    assert row == Row("keras", 4, pytest.approx(60), pytest.approx(100), pytest.approx(4 / 0.06), 500.0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"formats": ["table"]},
            ConfigError,
            r"Cannot benchmark --format=table; use one or more of savedmodel, keras",
        ),
        ({"formats": []}, ConfigError, "use one or more of savedmodel"),
        ({"batch_sizes": [8, 0]}, ConfigError, r"--batch_sizes is \[8, 0\]; use whole numbers of at least 1"),
        ({"batch_sizes": []}, ConfigError, r"--batch_sizes is \[\]"),
        ({"repeats": 0}, ConfigError, "repeats is 0; it must be at least 1"),
        ({"formats": ["keras"], "quantize": "int8"}, ExportError, "This format does not support --quantize=int8"),
        ({"image_size": 0}, ExportError, "image_size is 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(trained: Trained, settings, error, message):
    with pytest.raises(error, match=message):
        benchmark.benchmark(trained, **settings)


def test_prints_a_table_and_the_same_as_json():
    row = Row("tflite int8", 8, 12.345, 15.0, 648.0, 712.3)
    result = Benchmark("tiny", 40, "CPU with 2 cores", 5, 402.7, {"tflite int8": 0.04}, (row,))
    console = rich.console.Console(file=io.StringIO(), width=100)
    benchmark.print_benchmark(result, console)
    *table, last = console.file.getvalue().splitlines()
    assert ["tflite", "int8", "8", "12.35", "15.00", "648.0", "712", "0.0"] in [
        line.replace("│", " ").split() for line in table
    ]
    assert any("TensorFlow alone takes 403 MB of it" in line for line in table)
    told = json.loads(last)
    assert told["rows"] == [
        {
            "format": "tflite int8", "batch_size": 8, "median_ms": 12.345, "p90_ms": 15.0, "images_per_second": 648.0,
            "peak_megabytes": 712.3,
        }
    ]  # fmt: skip
    assert (told["model_name"], told["device"], told["megabytes"]) == (
        "tiny",
        "CPU with 2 cores",
        {"tflite int8": 0.04},
    )
