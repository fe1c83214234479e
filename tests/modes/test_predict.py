"""Prediction from a run and from an exported SavedModel."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.data import pipeline
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.data.sources.base import FileSource
from effnetv2_keras.errors import ConfigError
from effnetv2_keras.export import export_model
from effnetv2_keras.export.saved_model import SavedModelExporter, squares
from effnetv2_keras.models.features import with_features
from effnetv2_keras.modes import predict as predict_mode
from effnetv2_keras.modes import predictor as predictor_mode
from effnetv2_keras.modes.image_paths import find_images
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options
from effnetv2_keras.modes.predict import predict
from effnetv2_keras.modes.predictions import Prediction, format_table, to_json
from effnetv2_keras.modes.predictor import PredictError, Predictor, load_predictor
from effnetv2_keras.runs.trained import Trained, load_trained
from tests.made_runs import CLASS_NAMES, EVAL_SIZE, make_run, random_pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def trained(run: pathlib.Path) -> Trained:
    return load_trained(run)


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return export_model(trained, tmp_path_factory.mktemp("export") / "saved").path


@pytest.fixture(scope="module", params=["run", "exported"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return load_predictor(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Five images of different sizes and formats, in and below a folder that holds other files too."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more.jpg").mkdir()
    (folder / "readme.txt").write_text("not an image")
    names = ("b.png", "a.JPG", "more.jpg/c.jpeg", "more.jpg/d.bmp", "[bold]e.png")
    for seed, name in enumerate(names):
        pixels = random_pixels(30 + 20 * seed, 90 - 15 * seed, 1 if seed == 0 else 3, seed=seed)
        PIL.Image.fromarray(pixels.squeeze()).save(folder / name)
    return folder


def table_of(predictions: list[Prediction]) -> np.ndarray:
    """Probabilities ``[N, classes]`` in label order, of predictions that list every class."""
    return np.array([[dict(prediction.classes)[name] for name in CLASS_NAMES] for prediction in predictions])


def evaluated(trained: Trained, images: list[pathlib.Path]) -> np.ndarray:
    """Probabilities as ``--mode=eval`` computes them."""
    source = FileSource([str(path) for path in images], [0] * len(images), CLASS_NAMES)
    plan = pipeline.InputPlan(trained.config.data, 2, None, pipeline.UnreadableImages("error"))
    batches = pipeline.single_replica(pipeline.eval_input(source, plan, image_size=EVAL_SIZE))
    logits = tf.concat([trained.model(batch["image"], training=False) for batch in batches], 0)
    return tf.nn.softmax(logits).numpy()[: len(images)]


def test_sees_images_as_evaluation_does(predictor: Predictor, trained: Trained, photos: pathlib.Path):
    predictions = predict(predictor, [photos], top_k=len(CLASS_NAMES))
    expected = evaluated(trained, [prediction.path for prediction in predictions])
    assert np.ptp(expected, axis=0).max() > 1e-3, "the images must matter"
    np.testing.assert_allclose(table_of(predictions), expected, atol=1e-6)


@pytest.mark.slow
def test_takes_other_weights_of_a_run_on_request(run: pathlib.Path, trained: Trained, photos: pathlib.Path):
    image = [photos / "b.png"]
    best_average = evaluated(trained, image)
    for choice in ({"use_ema": False}, {"which": "latest"}):
        chosen = table_of(predict(load_predictor(run, **choice), image, top_k=6))
        np.testing.assert_allclose(chosen, evaluated(load_trained(run, **choice), image), atol=1e-6)
        assert np.abs(chosen - best_average).max() > 1e-3


def test_the_mirror_image_is_averaged_and_features_are_returned(trained: Trained, tmp_path: pathlib.Path):
    config = trained.config.override({"eval.tta": "flip"})
    flipped = predictor_mode._of_run(dataclasses.replace(trained, config=config), features=True)
    PIL.Image.fromarray(random_pixels(40, 60)).save(tmp_path / "a.png")
    (prediction,) = predict(flipped, [tmp_path], top_k=6)
    files = tf.constant([(tmp_path / "a.png").read_bytes()])
    usual = squares(files, EVAL_SIZE, config.data, Reading())
    features, logits = with_features(trained.model)(tf.concat([usual, usual[:, :, ::-1]], 0), training=False)
    probabilities = tf.nn.softmax(logits).numpy()
    np.testing.assert_allclose(table_of([prediction])[0], probabilities.mean(0), atol=1e-6)
    assert np.ptp(probabilities, axis=0).max() > 1e-3
    np.testing.assert_allclose(prediction.features, features.numpy().mean(0), rtol=1e-4, atol=1e-5)


def test_a_saved_model_has_neither_features_nor_other_weights_nor_views(exported: pathlib.Path):
    with pytest.raises(PredictError, match="returns probabilities but no features, so --embeddings cannot be written"):
        load_predictor(exported, features=True)
    with pytest.raises(PredictError, match="holds the weights that were exported, so --weights and --use_ema would"):
        load_predictor(exported, which="latest")
    with pytest.raises(PredictError, match="reads images as its run did, so eval.tta cannot be changed"):
        load_predictor(exported, changes={"eval.tta": "flip"})


def test_the_batch_size_changes_nothing(predictor: Predictor, photos: pathlib.Path):
    whole, pairs = (table_of(predict(predictor, [photos], top_k=6, batch_size=size)) for size in (32, 2))
    np.testing.assert_allclose(whole, pairs, atol=1e-6)


def test_lists_the_likeliest_classes_first_and_no_more_than_there_are(predictor: Predictor, photos: pathlib.Path):
    (everything,) = predict(predictor, [photos / "b.png"], top_k=100)
    (best,) = predict(predictor, [photos / "b.png"], top_k=2)
    assert {name for name, _ in everything.classes} == set(CLASS_NAMES)
    probabilities = [probability for _, probability in everything.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert best.classes == everything.classes[:2]


@pytest.mark.parametrize("setting", ["top_k", "batch_size"])
def test_counts_below_one_are_refused(predictor: Predictor, photos: pathlib.Path, setting: str):
    with pytest.raises(PredictError, match=f"{setting} is 0; it must be at least 1"):
        predict(predictor, [photos], **{setting: 0})


def test_an_unreadable_image_is_named_or_left_out(
    predictor: Predictor, photos: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    buffer = io.BytesIO()
    PIL.Image.fromarray(random_pixels(40, 40)).save(buffer, "JPEG")
    for name, content in (("cut.jpg", buffer.getvalue()[:300]), ("empty.png", b""), ("text.gif", b"hello")):
        (tmp_path / name).write_bytes(content)
        paths = [photos / "a.JPG", tmp_path / name, photos / "b.png"]
        with pytest.raises(PredictError, match=f"Cannot read the image .*{name}: it is not a complete JPEG"):
            predict(predictor, paths)
        with caplog.at_level(logging.WARNING, "absl"):
            predictions = predict(predictor, paths, top_k=6, unreadable="skip")
        assert [prediction.path.name for prediction in predictions] == ["a.JPG", "b.png"]
        assert str(tmp_path / name) in caplog.text
        np.testing.assert_allclose(table_of(predictions), table_of(predict(predictor, paths[::2], top_k=6)), atol=1e-6)


def test_other_formats_are_read_with_a_run_and_refused_in_words_by_an_export(
    run: pathlib.Path, exported: pathlib.Path, tmp_path: pathlib.Path
):
    PIL.Image.fromarray(random_pixels(40, 60)).save(tmp_path / "a.webp", lossless=True)
    PIL.Image.fromarray(random_pixels(40, 60)).save(tmp_path / "b.png")
    same = table_of(predict(load_predictor(run), [tmp_path], top_k=6))
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)
    with pytest.raises(PredictError, match=r"a\.webp: it is a WebP image, but an export reads only JPEG, PNG, GIF and"):
        predict(load_predictor(exported), [tmp_path])


def test_the_value_of_white_can_be_set_for_a_run_only(
    run: pathlib.Path, exported: pathlib.Path, tmp_path: pathlib.Path
):
    values = np.linspace(0, 4095, 1600).reshape(40, 40).astype(np.uint16)
    PIL.Image.fromarray(values).save(tmp_path / "dark.png")
    with pytest.raises(PredictError, match=r"dark\.png: it has 16 bits .* set --hparam_str=data\.max_value=4095"):
        predict(load_predictor(run), [tmp_path])
    changes = {"data.max_value": 4095}
    assert len(predict(load_predictor(run, changes=changes), [tmp_path])) == 1
    with pytest.raises(PredictError, match="reads images as its run did, so data.max_value cannot be changed"):
        load_predictor(exported, changes=changes)


def test_finds_images_in_order(photos: pathlib.Path, tmp_path: pathlib.Path):
    names = [str(path.relative_to(photos)) for path in find_images([photos])]
    assert names == ["[bold]e.png", "a.JPG", "b.png", "more.jpg/c.jpeg", "more.jpg/d.bmp"]
    other = tmp_path / "upload.tmp"
    other.write_bytes(b"")
    assert find_images([other, str(photos / "b.png")]) == [other, photos / "b.png"]


def test_says_what_is_missing(tmp_path: pathlib.Path):
    with pytest.raises(PredictError, match="Name files or folders"):
        find_images([])
    with pytest.raises(PredictError, match=r"There are no images \(.jpg.*in or below the folder"):
        find_images([tmp_path])
    with pytest.raises(PredictError, match=r"There is no file or folder .*nowhere.png"):
        find_images([tmp_path / "nowhere.png"])
    for path in ("a" * 5000, "~nobody_here/a.png", "a\0b"):
        with pytest.raises(PredictError, match="There is no file or folder"):
            find_images([path])
    with pytest.raises(PredictError, match="path of an image is empty"):
        find_images([""])


def test_says_why_a_folder_is_no_predictor(exported: pathlib.Path, tmp_path: pathlib.Path):
    with pytest.raises(PredictError, match=r"neither a run, .*config.yaml, nor a SavedModel, .*saved_model.pb"):
        load_predictor(tmp_path)

    other = tf.Module()
    other.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(other, str(tmp_path / "other"), signatures={"double": other.double})
    with pytest.raises(PredictError, match=r"signatures \['double'\] and lacks \['class_names', 'encoded'\]"):
        load_predictor(tmp_path / "other")

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "saved_model.pb").write_bytes((exported / "saved_model.pb").read_bytes())  # but no weights
    with pytest.raises(PredictError, match="The SavedModel in .*damaged cannot be loaded"):
        load_predictor(damaged)


PREDICTIONS = [
    Prediction(pathlib.Path("photos/[bold]x[/].png"), (("[red]ape", 0.75), ("été", 0.2))),
    Prediction(pathlib.Path("y.jpg"), (("bee", 0.5),)),
]


def test_classes_of_a_sigmoid_loss_are_independent(run, trained, photos, tmp_path):
    folder = shutil.copytree(run, tmp_path / "sigmoid")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("loss_type: softmax", "loss_type: sigmoid"))
    of_run = load_predictor(folder)
    saved = export_model(load_trained(folder), tmp_path / "saved")
    assert "Probabilities are the sigmoid of the logits." in saved.describe()
    of_export = load_predictor(saved.path)
    assert of_run.independent
    assert of_export.independent
    files = tf.constant([(photos / "b.png").read_bytes()])
    logits = SavedModelExporter(trained, EVAL_SIZE).classifier().encoded(files)["logits"]
    for predictor in (of_run, of_export):
        np.testing.assert_allclose(predictor.classify(files), tf.sigmoid(logits), atol=1e-5)
    console = rich.console.Console(file=io.StringIO(), width=80)
    format_table(PREDICTIONS, console, independent=True)
    assert "The classes are independent" in console.file.getvalue()


def test_prints_a_table():
    console = rich.console.Console(file=io.StringIO(), width=80)
    format_table(PREDICTIONS, console)
    cells = [line.replace("│", " ").split() for line in console.file.getvalue().splitlines()]
    assert ["photos/[bold]x[/].png", "[red]ape", "75.0%"] in cells
    assert ["été", "20.0%"] in cells
    assert ["y.jpg", "bee", "50.0%"] in cells


def test_writes_json():
    assert json.loads(to_json(PREDICTIONS)) == [
        {
            "path": "photos/[bold]x[/].png",
            "classes": [{"name": "[red]ape", "probability": 0.75}, {"name": "été", "probability": 0.2}],
        },
        {"path": "y.jpg", "classes": [{"name": "bee", "probability": 0.5}]},
    ]


def test_the_command_predicts_the_readable_images_and_names_the_others(
    run: pathlib.Path, photos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch
):
    monkeypatch.setattr(predict_mode, "load_predictor", lambda *_, **__: constant)

    def classify(files: tf.Tensor) -> tf.Tensor:
        for file in files:
            tf.io.decode_image(file)
        return tf.fill([len(files), len(CLASS_NAMES)], 1 / len(CLASS_NAMES))

    constant = Predictor(CLASS_NAMES, classify)
    (tmp_path / "empty.png").write_bytes(b"")
    paths = (str(photos / "a.JPG"), str(tmp_path / "empty.png"), str(photos / "b.png"))

    def command(*images: str, settings: str = "") -> None:
        options = Options(mode="predict", model_dir=str(run), hparam_str=(settings,) if settings else (), format="json")
        predict_mode.run(Invocation(options, rich.console.Console(width=200), images, None))

    with pytest.raises(PredictError, match=r"1 of 3 images cannot be read: .*empty.png.*data.unreadable=skip"):
        command(*paths)
    first = capsys.readouterr().out
    entries = json.loads(first)
    assert [entry["path"] for entry in entries] == list(paths)
    assert [bool(entry["classes"]) for entry in entries] == [True, False, True]
    assert "not a complete JPEG" in entries[1]["error"]
    assert "error" not in entries[0]
    command(*paths, settings="data.unreadable=skip")
    assert capsys.readouterr().out == first
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "a.JPG").symlink_to(photos / "a.JPG")
    (folder / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(PredictError, match=r"1 of 2 images cannot be read: .*gone.png \(the link or folder cannot be"):
        command(str(folder))
    for settings in ("", "data.unreadable=skip"):
        if settings:
            command(str(folder), settings=settings)
        entries = json.loads(capsys.readouterr().out)
        assert [entry["path"] for entry in entries] == [str(folder / "a.JPG"), str(folder / "gone.png")]
        assert [bool(entry["classes"]) for entry in entries] == [True, False]
    with pytest.raises(PredictError, match="1 of 1 images cannot be read"):
        command(paths[1], settings="data.unreadable=skip")
    with pytest.raises(ConfigError, match="data.unreadable='often'"):
        command(*paths, settings="data.unreadable=often")


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(PredictError, match="The path of an image is empty"):
        find_images([""])
