"""SavedModel export: what it computes, where it runs, and what it never overwrites."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import subprocess
import sys
from typing import Callable

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.data import decode
from effnetv2_keras.export import ExportError, ExportReport, export_saved_model
from effnetv2_keras.export.saved_model import _check_logits, _put_in_place
from effnetv2_keras.training.checkpoints import Trained, load_trained
from effnetv2_keras.training.state import build_for
from tests.runs import CLASS_NAMES, EVAL_CROP, EVAL_SIZE, make_run, random_pixels
from tests.tiny import TINY

ELSEWHERE = """
import sys
sys.modules["effnetv2_keras"] = None  # any import of the package fails, even if it is installed
import numpy as np, tensorflow as tf
inputs = np.load("inputs.npz", allow_pickle=True)
model = tf.saved_model.load(sys.argv[1])
outputs = model.signatures["serving_default"](images=tf.constant(inputs["pixels"]))
outputs = {"pixels_" + name: value.numpy() for name, value in outputs.items()}
encoded = model.signatures["encoded"](image_bytes=tf.constant(inputs["files"].tolist()))
outputs.update({"files_" + name: value.numpy() for name, value in encoded.items()})
outputs.update({name: value.numpy() for name, value in model.signatures["class_names"]().items()})
assert not any(name.startswith(("effnetv2_keras.", "tests.")) for name in sys.modules)
np.savez("outputs.npz", **outputs)
"""


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return load_trained(make_run(tmp_path_factory.mktemp("run")), spec=TINY)


@pytest.fixture(scope="module")
def report(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_saved_model(trained, tmp_path_factory.mktemp("export") / "new" / "saved")


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def serve(path: pathlib.Path, pixels: np.ndarray) -> np.ndarray:
    loaded = tf.saved_model.load(str(path))
    return loaded.signatures["serving_default"](images=tf.constant(pixels, tf.float32))["logits"].numpy()


def test_runs_in_a_process_without_the_package(trained: Trained, report: ExportReport, tmp_path: pathlib.Path):
    pixels = np.stack([random_pixels(24, 52, seed=seed) for seed in range(3)])
    files = [
        encode(random_pixels(57, 91, seed=3), "PNG"),
        encode(random_pixels(40, 40, seed=4), "JPEG"),
        encode(random_pixels(33, 20, 1, seed=5), "PNG"),
    ]
    np.savez(tmp_path / "inputs.npz", pixels=pixels.astype(np.float32), files=np.array(files, object))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(report.path)], cwd=tmp_path, env=environment, check=True)

    outputs = np.load(tmp_path / "outputs.npz", allow_pickle=True)
    cropped = [decode.central_crop(tf.constant(file), image_size=EVAL_SIZE, crop=EVAL_CROP) for file in files]
    for name, images in (("pixels", pixels), ("files", np.stack(cropped))):
        expected = trained.model(images, training=False).numpy()
        assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max(), "the images must matter"
        np.testing.assert_allclose(outputs[f"{name}_logits"], expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(outputs[f"{name}_probabilities"], tf.nn.softmax(expected), atol=1e-5)
        top = np.argsort(-expected)[:, :5]
        assert [[item.decode() for item in row] for row in outputs[f"{name}_top_classes"]] == [
            [CLASS_NAMES[label] for label in row] for row in top
        ]
        np.testing.assert_allclose(
            outputs[f"{name}_top_probabilities"], np.take_along_axis(outputs[f"{name}_probabilities"], top, 1)
        )
    assert [name.decode() for name in outputs["class_names"]] == list(CLASS_NAMES)


def rebuilt(trained: Trained, **changes: object) -> Trained:
    """The same weights under other settings, whose dot is written ``__``."""
    config = trained.config.override({name.replace("__", "."): value for name, value in changes.items()})
    model = build_for(config, TINY, len(CLASS_NAMES))
    model.set_weights(trained.model.get_weights())
    return dataclasses.replace(trained, config=config, model=model)


def test_normalises_inside_even_if_the_network_does_not(trained: Trained, tmp_path: pathlib.Path):
    export_saved_model(rebuilt(trained, model__include_preprocessing=False), tmp_path / "saved")
    pixels = np.stack([random_pixels(32, 32, seed=seed) for seed in range(2)])
    expected = trained.model(pixels, training=False).numpy()
    np.testing.assert_allclose(serve(tmp_path / "saved", pixels), expected, atol=1e-5 * np.abs(expected).max())


def test_keeps_mixed_precision(trained: Trained, tmp_path: pathlib.Path):
    mixed = rebuilt(trained, precision__policy="mixed_bfloat16")
    report = export_saved_model(mixed, tmp_path / "saved")
    assert report.largest_difference <= 1e-5
    pixels = random_pixels(32, 32)[None]
    served = serve(tmp_path / "saved", pixels)
    np.testing.assert_allclose(served, mixed.model(pixels, training=False), rtol=1e-2, atol=2e-3)
    assert np.abs(served - trained.model(pixels, training=False)).max() > 1e-4, "bfloat16 must show"


def test_report_tells_what_was_written(report: ExportReport):
    assert report.image_size == EVAL_SIZE
    assert report.megabytes == pytest.approx(sum(map(len, contents(report.path).values())) / 1e6)
    assert 0 <= report.largest_difference <= 1e-5
    assert 0 < report.seconds_per_image < 5
    assert f"{report.megabytes:.1f} MB" in report.describe()
    assert str(report.path) in report.describe()


def test_never_replaces_what_it_was_not_told_to(trained: Trained, tmp_path: pathlib.Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.png").write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"photos is not empty. Choose another --export_dir, or .*--overwrite"):
        export_saved_model(trained, photos)
    with pytest.raises(ExportError, match=r"holds files but no saved_model.pb"):
        export_saved_model(trained, photos, overwrite=True)
    with pytest.raises(ExportError, match=r"cat.png is a file; an export is a folder"):
        export_saved_model(trained, photos / "cat.png", overwrite=True)
    assert contents(tmp_path) == {"photos/cat.png": b"precious"}


@pytest.fixture
def occupied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder that looks like an earlier export."""
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (saved / name).write_bytes(b"old")
    return saved


def test_overwrite_replaces_an_export_and_leaves_nothing_beside_it(trained: Trained, occupied: pathlib.Path):
    report = export_saved_model(trained, occupied, image_size=24, overwrite=True)
    assert report.image_size == 24
    assert list(occupied.parent.iterdir()) == [occupied]

    file = encode(random_pixels(57, 91), "PNG")
    cropped = decode.central_crop(tf.constant(file), image_size=24, crop=EVAL_CROP)
    logits = tf.saved_model.load(str(occupied)).signatures["encoded"](image_bytes=tf.constant([file]))["logits"]
    np.testing.assert_allclose(logits, trained.model(cropped[None], training=False), rtol=1e-4)


def test_an_image_size_below_one_is_refused(trained: Trained, tmp_path: pathlib.Path):
    with pytest.raises(ExportError, match=r"image_size is 0; it must be at least 1 pixel"):
        export_saved_model(trained, tmp_path / "saved", image_size=0)


def ending_in(trained: Trained, change: Callable[[tf.Tensor], tf.Tensor]) -> Trained:
    return dataclasses.replace(trained, model=tf.keras.Sequential([trained.model, tf.keras.layers.Lambda(change)]))


def test_an_export_that_fails_its_check_changes_nothing(trained: Trained, occupied: pathlib.Path):
    unsteady = ending_in(trained, lambda logits: logits + tf.random.normal(tf.shape(logits)))
    before = contents(occupied.parent)
    with pytest.raises(ExportError, match=r"differ by .* of the largest logit; 1e-05 is allowed"):
        export_saved_model(unsteady, occupied, overwrite=True)
    assert contents(occupied.parent) == before
    assert list(occupied.parent.iterdir()) == [occupied]


def test_numbers_that_are_not_finite_fail_the_check(trained: Trained, report: ExportReport):
    broken = ending_in(trained, lambda logits: logits * np.nan)
    with pytest.raises(ExportError, match="differ by nan"):
        _check_logits(tf.saved_model.load(str(report.path)), broken, EVAL_SIZE)


def test_what_was_there_comes_back_if_the_new_one_cannot_take_its_place(occupied: pathlib.Path):
    before = contents(occupied)
    with pytest.raises(FileNotFoundError):
        _put_in_place(occupied.parent / "nothing", occupied, aside=occupied.parent / "aside")
    assert contents(occupied) == before


def test_an_interrupted_export_leaves_nothing(
    trained: Trained, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(path: str) -> None:
        assert (pathlib.Path(path) / "saved_model.pb").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.saved_model, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_saved_model(trained, tmp_path / "saved")
    assert not list(tmp_path.iterdir())
