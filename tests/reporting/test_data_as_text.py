"""Class names and paths reach the console, pictures and tables as they are, not as markup, mathematics or formulas."""

import csv
import io
import warnings

import numpy as np
import pytest
import rich.console
import rich.table

from effnetv2_keras.data.sources.base import ArraySource, DataError
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.modes.per_class import report_classes
from effnetv2_keras.reporting import plots
from effnetv2_keras.reporting.class_figures import Answers
from effnetv2_keras.reporting.console import show
from effnetv2_keras.reporting.progress import Progress
from tests.short_runs import tiny_config

NAMES = ("x[/y]", "[red]", ":smile:", "$a_$", r"$\\frac{$", "\u732b", "=1+1", "-2", "@a")


def figures_of(confusion):
    """What an evaluation with this confusion gives."""
    answers = Answers(len(confusion))
    labels, predicted = np.nonzero(confusion)
    times = confusion[labels, predicted]
    answers.update(labels.repeat(times), predicted.repeat(times), np.full(confusion.sum(), 0.5))
    return {"num_images": int(confusion.sum()), "top1": 0.5, **answers.result()}


def output_of(function, **console):
    file = io.StringIO()
    function(rich.console.Console(file=file, width=200, **console))
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_the_console_shows_text_as_it_is(name):
    assert name in output_of(lambda console: show(console, f"Wrote {name}."))
    assert name in output_of(lambda console: show(console, rich.table.Table("a wide heading", title=name)))
    stages = tiny_config().plan(12)
    assert name in output_of(lambda console: Progress(stages, console).say(name))

    def live(console):
        progress = Progress(stages, console)
        with progress.shown():
            progress._bar.update(progress._task, note=name)

    assert name in output_of(live, force_terminal=True, color_system=None)


def test_classes_of_any_name_are_reported(tmp_path):
    confusion = np.eye(len(NAMES), dtype=np.int64)
    confusion[0, 1] = 3
    figures = figures_of(confusion)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = output_of(lambda console: report_classes(figures, NAMES, tmp_path, console))
    assert "3 of 4 x[/y] were called [red]." in output
    assert (tmp_path / "confusion.png").stat().st_size > 5000
    rows = list(csv.reader((tmp_path / "per_class.csv").open(encoding="utf-8")))
    assert [row[0] for row in rows[1:]] == [*NAMES[:6], "'=1+1", "'-2", "'@a"]
    assert dict(zip(rows[0], rows[1]))["most often taken for"] == "[red]"
    heading, first, *_ = csv.reader((tmp_path / "confusion.csv").open(encoding="utf-8"))
    assert heading[1:] == [*NAMES[:6], "'=1+1", "'-2", "'@a"]
    assert first == ["x[/y]", "1", "3", *"0000000"]


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(plots, "plot_confusion", broken)
    confusion = np.eye(2, dtype=np.int64)
    figures = figures_of(confusion)
    output = output_of(lambda console: report_classes(figures, ("a", "b"), tmp_path, console))
    assert "Cannot draw a picture (broken): RuntimeError: no font" in caplog.text
    assert "confusion.png" not in output
    assert (tmp_path / "per_class.csv").exists()


@pytest.mark.parametrize("name", ["a\nb", "a\rb"])
def test_a_class_name_with_a_line_break_is_refused(name):
    source = ArraySource(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ("c", name))
    with pytest.raises(DataError, match=r"contains a line break.*one class per line. Rename the class"):
        Splits(source, source)
