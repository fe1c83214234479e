"""``--mode=preview``: which file it writes."""

from __future__ import annotations

import numpy as np
import pytest

from effnetv2_keras.data.sources.base import ArraySource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import UsageError
from effnetv2_keras.modes import preview
from effnetv2_keras.reporting.plots import plot_image_sheet
from tests.short_runs import tiny_config

IMAGES = [np.zeros((2, 8, 8, 3), np.uint8)]


def test_the_sheet_is_written_where_it_was_asked_for(tmp_path):
    plot_image_sheet(IMAGES, ["stage"], tmp_path / "sheet")
    plot_image_sheet(IMAGES, ["stage"], tmp_path / "sheet.jpg")
    assert {path.name: path.read_bytes()[1:4] for path in tmp_path.iterdir()} == {
        "sheet": b"PNG",
        "sheet.jpg": b"\xd8\xff\xe0",
    }


@pytest.mark.parametrize("name", ["sheet.foo", "", "no/sheet.png"])
def test_a_sheet_that_cannot_be_written_is_a_message(tmp_path, monkeypatch, name):
    source = ArraySource(np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 2, ("a", "b"))
    monkeypatch.setattr(preview, "open_splits", lambda _: Splits(source, source))
    monkeypatch.setattr(preview, "train_input", lambda *_, **__: None)
    monkeypatch.setattr(preview, "single_replica", lambda _: [{"image": IMAGES[0]}])
    with pytest.raises(UsageError, match="cannot be written: .*Choose another --preview_file"):
        preview.write_preview(tiny_config(), tmp_path / name)
