"""The output of ``--mode=predict``: its formats and files, and the rows of files that cannot be read."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.export.saved_model import squares
from effnetv2_keras.modes import predict as predict_mode
from effnetv2_keras.modes.image_paths import Listed, list_images
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options
from effnetv2_keras.modes.predictions import Prediction, format_table, shortened, to_csv, to_json, to_json_lines
from effnetv2_keras.modes.predictor import PredictError, Predictor
from effnetv2_keras.reporting import progress

NAMES = ('red, or "crimson"', "-blue", "grün")
ODD = ("a, b.png", 'quote".png', "line\nbreak.png", "été 猫.png", "=1+1.png")


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def outputs(files):
    """Probabilities in proportion to the mean of the three channels, and these means as features."""
    means = tf.reduce_mean(squares(files, 8, DataConfig(), Reading()), [1, 2]) + 1
    return means / tf.reduce_sum(means, -1, keepdims=True), means


@pytest.fixture
def predict(monkeypatch):
    """Runs ``--mode=predict`` with a classifier that needs no network; returns what the console shows."""
    asked = []

    def load(*_, features, **changes):
        asked.append(changes)
        return Predictor(NAMES, lambda files: outputs(files)[0], embed=outputs if features else None)

    def run(*images, **flags):
        console = rich.console.Console(file=io.StringIO(), width=140)
        options = Options(mode="predict", model_dir="run", **flags)
        predict_mode.run(Invocation(options, console, tuple(map(str, images)), None))
        return console.file.getvalue()

    monkeypatch.setattr(predict_mode, "load_predictor", load)
    run.asked = asked
    return run


def save(path, color=(200, 60, 30), size=(24, 20), **options):
    PIL.Image.new("RGB", size, color).save(path, **options)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two hundred files: 197 images, one of them WebP, and three that cannot be read, in the middle of batches."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(196):
        save(folder / f"{number:03d}.{('jpg', 'png')[number % 2]}", color=(number, 255 - number, 40))
    save(folder / "050_photo.webp", lossless=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "100_cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "whole.jpg").unlink()
    (folder / "101_text.jpg").write_text("this is no image")
    (folder / "150_empty.png").write_bytes(b"")
    return folder


def test_of_two_hundred_files_each_gets_its_row_or_its_reason(predict, many, tmp_path):
    path = tmp_path / "new folder" / "predictions.csv"
    with pytest.raises(PredictError, match=r"3 of 200 images cannot be read: .*100_cut.jpg .*data.unreadable=skip"):
        predict(many, output=str(path))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == sorted(map(str, many.iterdir()))
    assert list(rows[0]) == [
        "image",
        "class",
        "probability",
        "class_2",
        "probability_2",
        "class_3",
        "probability_3",
        "error",
    ]
    failed = {pathlib.Path(row["image"]).name: row for row in rows if row["error"]}
    assert set(failed) == {"100_cut.jpg", "101_text.jpg", "150_empty.png"}
    assert all("not a complete JPEG" in row["error"] and not row["class"] for row in failed.values())
    for row in rows:
        if not row["error"]:
            assert float(row["probability"]) >= float(row["probability_2"]) >= float(row["probability_3"]) > 0
    assert not any(name.name.endswith(".partial") for name in path.parent.iterdir())
    said = predict(many, output=str(path), hparam_str=("data.unreadable=skip",))
    assert said == f"Wrote {path}: 200 rows, 3 of them with the reason why an image cannot be read.\n"
    if importlib.util.find_spec("pandas"):
        import pandas

        assert pandas.read_csv(path).shape == (200, 8)


def test_names_with_commas_quotes_newlines_and_other_letters_survive(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ODD:
        save(name)
    predict(*ODD, output="p.csv", top_k=2)
    with open("p.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == [*ODD[:-1], "./=1+1.png"]  # which no spreadsheet computes
    assert {row[1] for row in rows[1:]} == {NAMES[0]}
    predict(*ODD, output="p.jsonl", top_k=2)
    entries = [json.loads(line) for line in pathlib.Path("p.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in entries] == list(ODD)
    assert entries[0]["classes"][0]["name"] == NAMES[0]
    predict(*ODD, output="p.dat", format="json")
    assert [entry["path"] for entry in json.loads(pathlib.Path("p.dat").read_text())] == list(ODD)


def test_each_kind_of_bad_path_costs_only_its_own_row(predict, tmp_path, capsys):
    save(tmp_path / "good.png")
    (tmp_path / "closed.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.cr2").write_bytes(b"x")
    (tmp_path / "raw" / "gone.jpg").symlink_to("nowhere.jpg")
    paths = [tmp_path / name for name in ("missing.png", "closed.png", "good.png", "empty", "raw", "good.png")]
    real = pathlib.Path.read_bytes

    def read_bytes(path):  # root may read every file
        if path.name == "closed.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", read_bytes)
        with pytest.raises(PredictError, match=r"5 of 7 images cannot be read"):
            predict(*paths, format="json")
    entries = json.loads(capsys.readouterr().out)
    expected = {
        "missing.png": "no such file or folder",
        "closed.png": "cannot be opened: Permission denied",
        "good.png": "",
        "empty": "no images",
        "raw/gone.jpg": "the link or folder cannot be opened",
        "raw": "kinds that cannot be read: 1 .cr2",
    }
    assert [os.path.relpath(entry["path"], tmp_path) for entry in entries] == [*expected, "good.png"]
    for entry, reason in zip(entries, [*expected.values(), ""]):
        assert reason in entry.get("error", "")
        assert bool(entry["classes"]) == ("error" not in entry) == (not reason)


def test_a_command_of_which_nothing_can_be_opened_ends_before_the_network_is_loaded(predict, tmp_path):
    with pytest.raises(PredictError, match=r"None of the paths is an image that can be opened: .*nowhere \(there"):
        predict(tmp_path / "nowhere")
    assert predict.asked == []
    assert list_images([__file__]) == [Listed(pathlib.Path(__file__))]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output": "folder.csv"}, r"--output=folder.csv is a folder. Give the path of a file in it"),
        ({"output": "p.xls"}, r"--output=p.xls has the ending .xls, which names no format. Use .csv, .json or .jsonl"),
        ({"output": "predictions"}, "--output=predictions has no ending"),
        ({"output": "good.png/p.csv"}, "--output=good.png/p.csv cannot be written: .* Choose another path"),
        ({"embeddings": "e.npy"}, r"--embeddings=e.npy must end in .npz"),
        ({"embeddings": "folder.csv"}, "--embeddings=folder.csv is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_classified(
    predict, tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    save("good.png")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(PredictError, match=message):
        predict("good.png", **flags)
    assert predict.asked == []


def test_a_failed_write_leaves_the_earlier_file(predict, tmp_path, monkeypatch):
    save(tmp_path / "good.png")
    path = tmp_path / "p.csv"
    path.write_text("earlier")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(PredictError, match=r"p.csv cannot be written: No space left on device"):
        predict(tmp_path / "good.png", output=str(path))
    assert path.read_text() == "earlier"
    assert sorted(name.name for name in tmp_path.iterdir()) == ["good.png", "p.csv"]


def test_features_are_written_for_numpy(predict, many, tmp_path):
    path = tmp_path / "features.npz"
    said = predict(many, embeddings=str(path), hparam_str=("data.unreadable=skip",), output=str(tmp_path / "p.json"))
    assert f"Wrote {path}: the 3 features of 197 images." in said
    saved = np.load(path)
    entries = [entry for entry in json.loads((tmp_path / "p.json").read_text()) if "error" not in entry]
    assert saved["images"].tolist() == [entry["path"] for entry in entries]
    assert saved["classes"].tolist() == [entry["classes"][0]["name"] for entry in entries]
    assert saved["class_names"].tolist() == list(NAMES)
    assert (saved["embeddings"].shape, saved["embeddings"].dtype) == ((197, 3), np.float32)
    np.testing.assert_allclose(saved["embeddings"][0], np.array([0, 255, 40]) + 1, atol=2)


def test_only_one_batch_of_files_is_in_memory(many, monkeypatch):
    read = []
    monkeypatch.setattr(predict_mode, "_read", lambda item: read.append(item) or item.path.read_bytes())
    predictor = Predictor(NAMES, lambda files: outputs(files)[0])
    stream = predict_mode.classified(predictor, [Listed(many / "000.jpg")] * 50, top_k=1, batch_size=4)
    next(stream)
    assert len(read) == 4
    assert len(list(stream)) == 49


def test_settings_of_reading_and_views_go_to_the_predictor(predict, tmp_path):
    save(tmp_path / "good.png")
    predict(tmp_path / "good.png", hparam_str=("eval.tta=flip,data.unreadable=skip",), weights="latest")
    assert predict.asked == [{"which": "latest", "use_ema": True, "changes": {"eval.tta": "flip"}}]


def test_a_table_fits_and_shortens_paths_in_the_middle():
    long = Prediction(
        pathlib.Path("photographs/" * 12 + "last.jpg"), (("a class with a name of many words " * 3, 0.5),)
    )
    failed = Prediction(pathlib.Path("x.jpg"), (), "it is " + "not an image " * 20)
    for width in (140, 60):
        console = rich.console.Console(file=io.StringIO(), width=width)
        format_table([long, failed], console)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= min(width, 80)
        assert any("..." in line and "last.jpg" in line for line in lines)
    assert shortened("0123456789abcdef", 12) == "012...abcdef"
    assert shortened("0123456789ab", 12) == "0123456789ab"


def test_formats_of_nothing_but_errors():
    failed = [Prediction(pathlib.Path("x.jpg"), (), "it is empty")]
    assert to_csv(failed) == "image,class,probability,error\nx.jpg,,,it is empty\n"
    assert json.loads(to_json_lines(failed)) == json.loads(to_json(failed))[0]


def test_progress_is_logged_from_time_to_time(monkeypatch, caplog):
    times = iter(np.arange(0, 1000, 4.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with caplog.at_level(logging.INFO, "absl"):
        assert list(progress.counted(range(9), 9, "predicting")) == list(range(9))
    assert caplog.messages == [
        f"predicting: {3 * part} of 9, 0.25 images/s, 0:00:{36 - 12 * part} left" for part in (1, 2)
    ]
