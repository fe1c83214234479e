from __future__ import annotations

import io

import pytest
import rich.console

from effnetv2_keras.overview import print_plan
from tests.images import write_classes
from tests.short_runs import tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("", "12 steps of 8 images: 4 epochs"),
        ("train.min_steps=5", "12 steps of 8 images: 4 epochs"),
        ("train.min_steps=20", "20 steps of 8 images: 6.667 epochs, to reach train.min_steps"),
    ],
)
def test_plan_says_why_the_run_is_as_long_as_it_is(tmp_path, changes, message):
    write_classes(tmp_path / "train", {"red": 8, "green": 8, "blue": 8})
    write_classes(tmp_path / "val", {"red": 1, "green": 1, "blue": 1}, seed=1)
    output = io.StringIO()
    print_plan(tiny_config(changes, data_dir=str(tmp_path)), rich.console.Console(file=output, width=200))
    assert message in output.getvalue()
