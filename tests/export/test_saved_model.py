"""The SavedModel: what it computes, and where it runs."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.data import decode
from effnetv2_keras.data.cropping import CROPPINGS
from effnetv2_keras.export import ExportReport, export_model
from effnetv2_keras.runs.trained import Trained
from tests.export.exports import rebuilt
from tests.made_runs import CLASS_NAMES, EVAL_CROP, EVAL_SIZE, random_pixels

ELSEWHERE = """
import sys
sys.modules["effnetv2_keras"] = None  # any import of the package fails, even if it is installed
import numpy as np, tensorflow as tf
inputs = np.load("inputs.npz", allow_pickle=True)
model = tf.saved_model.load(sys.argv[1])
outputs = model.signatures["serving_default"](images=tf.constant(inputs["pixels"]))
outputs = {"pixels_" + name: value.numpy() for name, value in outputs.items()}
bytes_ = model.signatures["uint8"](images=tf.constant(inputs["pixels"], tf.uint8))
outputs.update({"uint8_" + name: value.numpy() for name, value in bytes_.items()})
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
def report(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(trained, tmp_path_factory.mktemp("export") / "new" / "saved")


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
    for name, images in (("pixels", pixels), ("uint8", pixels), ("files", np.stack(cropped))):
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


def test_normalises_inside_even_if_the_network_does_not(trained: Trained, tmp_path: pathlib.Path):
    export_model(rebuilt(trained, model__include_preprocessing=False), tmp_path / "saved")
    pixels = np.stack([random_pixels(32, 32, seed=seed) for seed in range(2)])
    expected = trained.model(pixels, training=False).numpy()
    np.testing.assert_allclose(serve(tmp_path / "saved", pixels), expected, atol=1e-5 * np.abs(expected).max())


def test_keeps_mixed_precision(trained: Trained, tmp_path: pathlib.Path):
    mixed = rebuilt(trained, precision__policy="mixed_bfloat16")
    report = export_model(mixed, tmp_path / "saved")
    assert report.comparison.largest_difference <= 1e-5
    pixels = random_pixels(32, 32)[None]
    served = serve(tmp_path / "saved", pixels)
    np.testing.assert_allclose(served, mixed.model(pixels, training=False), rtol=1e-2, atol=2e-3)
    assert np.abs(served - trained.model(pixels, training=False)).max() > 1e-4, "bfloat16 must show"


def test_the_export_turns_photographs_and_refuses_other_formats_in_words(report: ExportReport):
    encoded = tf.saved_model.load(str(report.path)).signatures["encoded"]
    image = PIL.Image.fromarray(random_pixels(57, 91))
    files = {}
    for name, kind, options in (
        ("turned", "JPEG", {"exif": image_tags(6), "quality": 95}),
        ("upright", "JPEG", {"quality": 95}),
        ("webp", "WEBP", {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    turned, upright = encoded(image_bytes=tf.constant([files["turned"], files["upright"]]))["logits"].numpy()
    pixels = tf.image.rot90(decode.decode(files["upright"]), k=3)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    expected = encoded(image_bytes=tf.constant([buffer.getvalue()]))["logits"].numpy()[0]
    assert np.abs(turned - upright).max() > 10 * np.abs(turned - expected).max()
    with pytest.raises(tf.errors.InvalidArgumentError, match="it is a WebP image, but an export reads only JPEG, PNG"):
        encoded(image_bytes=tf.constant([files["webp"]]))


def image_tags(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_overwrite_replaces_an_export_and_leaves_nothing_beside_it(trained: Trained, occupied: pathlib.Path):
    report = export_model(trained, occupied, image_size=24, overwrite=True)
    assert report.image_size == 24
    assert list(occupied.parent.iterdir()) == [occupied]

    file = encode(random_pixels(57, 91), "PNG")
    cropped = decode.central_crop(tf.constant(file), image_size=24, crop=EVAL_CROP)
    logits = tf.saved_model.load(str(occupied)).signatures["encoded"](image_bytes=tf.constant([file]))["logits"]
    np.testing.assert_allclose(logits, trained.model(cropped[None], training=False), rtol=1e-4)


def test_files_are_framed_as_evaluation_does(trained: Trained, tmp_path: pathlib.Path):
    cubic = rebuilt(trained, data__pipeline="original_v1", data__eval_crop=None)
    export_model(cubic, tmp_path / "saved", image_size=24)
    file = encode(random_pixels(57, 91), "PNG")
    framed = CROPPINGS["original_v1"].evaluate(tf.constant(file), image_size=24, crop=None)
    expected = trained.model(framed[None], training=False).numpy()
    logits = tf.saved_model.load(str(tmp_path / "saved")).signatures["encoded"](image_bytes=tf.constant([file]))[
        "logits"
    ]
    np.testing.assert_allclose(logits, expected, rtol=1e-4)
    rounded = decode.central_crop(tf.constant(file), image_size=24)
    assert np.abs(expected - trained.model(rounded[None], training=False)).max() > 1e-3 * np.abs(expected).max()
