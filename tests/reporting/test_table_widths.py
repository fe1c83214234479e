"""No table is wider than 80 columns, with the widest content of real runs."""

from __future__ import annotations

import io

import pytest
import rich.console
import rich.table

import hparams
from effnetv2_keras.architecture.variants import MODELS
from effnetv2_keras.config import Config
from effnetv2_keras.modes import benchmark, plan, scale, summary
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.tables import stage_report
from effnetv2_keras.search import display


def printed(show_table):
    output = io.StringIO()
    show_table(rich.console.Console(file=output, width=80))
    return output.getvalue()


def table_lines(text):
    """The lines of tables; lines of text are not wrapped."""
    return [line for line in text.splitlines() if set(line) & set("│┃┏├└")]


def config(dataset, model):
    return hparams.load(dataset, model, "paper")


def report(console):
    stages = config("ImageNet", "efficientnetv2-l").plan(1_094_740)
    rows = []
    for number, stage in enumerate(stages):
        seconds = 360_000.0 * (number + 1)
        head = {"step": stage.end_step, "seconds": seconds}
        rows.append({"kind": "train", **head, "images_per_second": 12345.6, "loss": 2.3456, "memory_mb": 80000.0})
        rows.append({"kind": "eval", **head, "top1": 0.8512, "top1_ema": 0.8571, "epoch": 87.5})
    show(console, stage_report(stages, rows))


def measured(console):
    formats = ("savedmodel", "keras", "tflite (float16)", "onnx")
    rows = tuple(
        benchmark.Row(name, size, 12345.67, 23456.78, 1234.5, 12345.6) for name in formats for size in (1, 128)
    )
    device, megabytes = "NVIDIA H100 80GB HBM3 and a long name", dict.fromkeys(formats, 1234.5)
    result = benchmark.Benchmark("efficientnetv2-xl", 512, device, 20, 345.6, megabytes, rows)
    benchmark.print_benchmark(result, console)


def summary_of(model, console):
    summary.print_summary(Config().override({"model.model_name": model}), console)


TABLES = {
    "plan of ImageNet": lambda console: plan.print_plan(config("ImageNet", "efficientnetv2-l"), console),
    "plan of the demo": lambda console: plan.print_plan(config("demo", "efficientnetv2-b0"), console),
    "summary": lambda console: summary_of("efficientnetv2-xl", console),
    "summary of V1": lambda console: summary_of("efficientnet-l2", console),
    "scale": lambda console: show(console, scale.screen_table(scale.from_base_table())),
    "scale with large numbers": lambda console: show(console, scale.screen_table([MODELS["efficientnetv2-xl"]])),
    "report": report,
    "benchmark": measured,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_fits(name):
    text = printed(TABLES[name])
    lines = table_lines(text)
    assert lines
    assert max(map(len, lines)) <= 80, text
    assert "…" not in text


def test_the_line_of_a_trial_fits():
    cells = ["12345", "efficientnetv2-xl-0123456789", "0.1234", "12.345", "1208.119", "146.123", "0.1234", "host:1@2"]
    assert len(display._line(cells)) == 80
    assert len(cells) == len(display.HEADINGS)


def test_columns_that_are_the_same_in_every_row_make_room_and_are_named_below():
    table = rich.table.Table(title="Stages")
    headings = ("stage", "dropout", "mixup", "a very long heading that needs much room", "another of them, also long")
    for heading in headings:
        table.add_column(heading, justify="right")
    for number in range(2):
        table.add_row(str(number), "0.2", "0", str(number), str(number))
    text = printed(lambda console: show(console, table))
    assert "In every row: mixup 0, dropout 0.2" in text
    assert "another of them, also long" in text
    wide = io.StringIO()
    show(rich.console.Console(file=wide, width=200), table)
    assert "In every row" not in wide.getvalue()
    assert "dropout" in wide.getvalue()
