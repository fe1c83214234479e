"""What every export format keeps to: what it reports, what it never overwrites, what it leaves when it fails."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.export import EXPORTERS, Comparison, ExportError, ExportReport, default_path, export_model
from effnetv2_keras.export.exporter import _put_in_place, relative_difference
from effnetv2_keras.export.saved_model import SavedModelExporter
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import contents, ending_in
from tests.made_runs import CLASS_NAMES, EVAL_SIZE


@pytest.fixture(scope="module")
def report(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(trained, tmp_path_factory.mktemp("export") / "new" / "keras", format_name="keras")


def test_the_report_tells_what_was_written(report: ExportReport):
    assert report.image_size == EVAL_SIZE
    assert report.megabytes == pytest.approx(sum(map(len, contents(report.path).values())) / 1e6)
    assert 0 <= report.comparison.largest_difference <= 1e-5
    assert 0 < report.seconds_per_image < 5
    assert f"{report.megabytes:.1f} MB" in report.describe()
    assert str(report.path) in report.describe()
    assert "top-1" not in report.describe()


def test_the_report_tells_of_agreement_where_it_was_counted(tmp_path: pathlib.Path):
    report = ExportReport(tmp_path, 40, 1.0, Comparison(0.1, 97, 100), 0.01)
    assert "the same top-1 on 97 of 100 images; 10.0 ms per image of 40 px" in report.describe()


def test_class_names_ride_along(report: ExportReport):
    assert (report.path / "labels.txt").read_text("utf-8").splitlines() == list(CLASS_NAMES)


def test_every_format_has_a_folder_of_its_own():
    paths = [default_path("run", name, quantize) for name in EXPORTERS for quantize in EXPORTERS[name].quantizations]
    assert len(set(paths)) == len(paths) == 7
    assert paths[0] == "run/saved_model"


def test_nothing_is_replaced_unless_told_to(trained: Trained, tmp_path: pathlib.Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.png").write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"photos is not empty. Choose another --export_dir, or .*--overwrite"):
        export_model(trained, photos)
    for name, exporter in EXPORTERS.items():
        if name != "onnx":  # which may not be installed
            with pytest.raises(ExportError, match=f"contains files but no {exporter.marker}, so it is not an export"):
                export_model(trained, photos, format_name=name, overwrite=True)
    with pytest.raises(ExportError, match=r"cat.png is a file, but an export is a folder"):
        export_model(trained, photos / "cat.png", overwrite=True)
    assert contents(tmp_path) == {"photos/cat.png": b"precious"}


def test_an_image_size_below_one_is_refused(trained: Trained, tmp_path: pathlib.Path):
    with pytest.raises(ExportError, match=r"image_size is 0, but must be at least 1 pixel"):
        export_model(trained, tmp_path / "saved", image_size=0)


def test_a_quantization_that_the_format_does_not_know_is_refused(trained: Trained, tmp_path: pathlib.Path):
    with pytest.raises(ExportError, match=r"does not support --quantize=int8; it allows none. Use --format=tflite"):
        export_model(trained, tmp_path / "saved", quantize="int8")


def test_an_export_that_fails_its_check_changes_nothing(trained: Trained, occupied: pathlib.Path):
    unsteady = ending_in(trained, lambda logits: logits + tf.random.normal(tf.shape(logits)))
    before = contents(occupied.parent)
    with pytest.raises(ExportError, match=r"differ by .* of the largest logit; 1e-04 is allowed"):
        export_model(unsteady, occupied, overwrite=True)
    assert contents(occupied.parent) == before
    assert list(occupied.parent.iterdir()) == [occupied]


def test_numbers_that_are_not_finite_fail_the_check(trained: Trained):
    exporter = SavedModelExporter(trained, EVAL_SIZE)
    difference = relative_difference(np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]]))
    with pytest.raises(ExportError, match="differ by nan"):
        exporter._check(Comparison(difference))


def test_what_was_there_comes_back_if_the_new_one_cannot_take_its_place(occupied: pathlib.Path):
    before = contents(occupied)
    with pytest.raises(FileNotFoundError):
        _put_in_place(occupied.parent / "nothing", occupied, aside=occupied.parent / "aside")
    assert contents(occupied) == before


def test_an_interrupted_export_leaves_nothing(
    trained: Trained, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(path: pathlib.Path, **_: object) -> None:
        assert path.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.keras.models, "load_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(trained, tmp_path / "keras", format_name="keras")
    assert not list(tmp_path.iterdir())
