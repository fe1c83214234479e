"""The check of every image file before the first step."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import PIL.Image
import pytest

from effnetv2_keras.config import Config, DataConfig
from effnetv2_keras.data import verification
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.environment import CACHE_VARIABLE
from effnetv2_keras.errors import ConfigError, Interrupted
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.interruption import StopRequest
from effnetv2_keras.training.verified import verified_splits
from tests.images import write_classes


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder with 12 images to train on and 6 to evaluate on, and a cache of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    root = tmp_path / "images"
    write_classes(root / "train", {"red": 6, "green": 6})
    write_classes(root / "val", {"red": 3, "green": 3}, seed=1)
    return root


def cut(path, share=0.98):
    """Removes the end of a file. Without its last 2 %, central crops and most random crops of a JPEG are decoded."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def opened(root, **settings):
    data = DataConfig(data_dir=str(root), **settings)
    return data, open_splits(data)


def check(root, on_checked=None, **settings):
    data, splits = opened(root, **settings)
    found = verification.verify({"training": splits.train, "evaluation": splits.evaluation}, data, on_checked)
    return {name: list(left_out.labels) for name, left_out in found.items()}


def checked(root, **settings):
    """Returns how many files a check decodes."""
    counts = [0]
    check(root, lambda done, _: counts.append(done), **settings)
    return counts[-1]


def test_every_truncated_file_is_named_in_one_error(images):
    broken = [cut(images / "train/red/red_000.jpg"), cut(images / "train/green/green_001.png", 0.5)]
    broken.append(cut(images / "val/red/red_002.jpg", 0))
    with pytest.raises(DataError, match=r"3 of the 18 image files cannot be used.*data.unreadable=skip") as error:
        check(images)
    assert all(str(path) in str(error.value) for path in broken)


def test_only_ten_of_many_unreadable_files_are_named(images):
    for path in (images / "train").rglob("*.*"):
        cut(path)
    with pytest.raises(DataError, match=r"and 2 more: 12 of the 18"):
        check(images)


def test_skip_leaves_truncated_files_out_and_counts_them_by_class(images, caplog):
    broken = cut(images / "train/red/red_000.jpg")
    assert check(images, unreadable="skip") == {"training": [str(broken)], "evaluation": []}
    assert "Leaving out 1 of 12 training images that cannot be decoded ('red': 1 of 6)" in caplog.text


def test_skip_leaves_out_neither_most_images_nor_a_whole_class(images):
    for number in range(4):
        cut(next((images / "train/red").glob(f"*{number}.*")))
    with pytest.raises(DataError, match=r"4 of 12 images cannot be decoded \('red': 4 of 6\), but data.max_unreadable"):
        check(images, unreadable="skip")
    assert len(check(images, unreadable="skip", max_unreadable=0.5)["training"]) == 4
    for path in (images / "val/green").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="No image of the class 'green' can be decoded"):
        check(images, unreadable="skip", max_unreadable=0.9)


def test_skip_says_why_images_are_left_out(images, caplog):
    for number in range(4):
        path = next((images / "train/red").glob(f"*{number}.*"))
        PIL.Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(path, "PNG")
    cut(images / "train/red/red_004.jpg", 0)
    reasons = r"\(it has 16 bits per channel, .*set --hparam_str=data.max_value=1023; .*; it is not a complete JPEG"
    with pytest.raises(DataError, match=f"5 of 12 images .*{reasons}"):
        check(images, unreadable="skip")
    cut(images / "train/red/red_005.png", 0)
    with pytest.raises(DataError, match=f"the class 'red' .*{reasons}"):
        check(images, unreadable="skip", max_unreadable=0.9)
    for path in (images / "train/red").glob("*[0-3].*"):
        PIL.Image.new("RGB", (4, 4), (int(path.stem[-1]), 0, 0)).save(path)
    check(images, unreadable="skip")
    assert re.search(r"'red': 2 of 6\).*red_004.jpg.*\(it is not a complete JPEG", caplog.text)


@pytest.mark.parametrize("files", [[], "text", None, {"a.jpg": None}, {"a.jpg": [1, 2, 3]}, {"a.jpg": ["1", "2", "3"]}])
def test_a_damaged_cache_is_no_error(images, tmp_path, files):
    check(images)
    (path,) = (tmp_path / "cache/verified").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
    assert checked(images) == 18
    assert checked(images) == 0


def test_copies_in_both_splits_and_in_two_classes_are_reported(images, caplog):
    check(images)
    assert not caplog.text
    (images / "val/red/red_000.jpg").write_bytes((images / "train/red/red_002.jpg").read_bytes())
    (images / "train/green/green_003.png").write_bytes((images / "train/red/red_003.png").read_bytes())
    check(images)
    assert "1 evaluation images are identical to training images" in caplog.text
    assert "val/red/red_000.jpg = " in caplog.text
    assert "1 images have copies with other labels" in caplog.text
    assert "green_003.png (green) = " in caplog.text


def test_only_files_that_changed_or_could_not_be_read_are_checked_again(images, tmp_path):
    assert checked(images) == 18
    assert checked(images) == 0
    broken = cut(images / "train/red/red_000.jpg")
    assert checked(images, unreadable="skip") == 1
    assert checked(images, unreadable="skip") == 1
    broken.unlink()
    assert checked(images) == 0
    (cache,) = (tmp_path / "cache/verified").iterdir()
    for damage in ("{", "[]", '{"format": 1}', json.dumps({**json.loads(cache.read_text()), "files": {"a": [1]}})):
        cache.write_text(damage)
        assert checked(images) == 17


def test_a_cache_that_cannot_be_written_is_no_error(images, tmp_path, caplog):
    (tmp_path / "cache").write_text("not a folder")
    assert checked(images) == 18
    assert "Cannot remember which files were verified" in caplog.text


def test_an_interrupted_check_goes_on_where_it_ended(images, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "_FILES", 5)
    stop = StopRequest()
    stop.name = "SIGTERM"
    with pytest.raises(Interrupted, match="while checking images: 5 of 18"):
        verified(opened(images), tmp_path / "run", stop)
    assert checked(images) == 13


def verified(data_and_splits: tuple[DataConfig, Splits], run, stop=None):
    data, splits = data_and_splits
    config, folder = Config(data=data), RunFolder(run)
    import rich.console

    console = rich.console.Console(quiet=True)
    return verified_splits(config, folder, make_strategy("cpu"), splits, console, stop or StopRequest()), folder, config


def test_a_resumed_run_leaves_out_what_it_left_out_at_first(images, tmp_path):
    path = images / "train/red/red_000.jpg"
    whole = path.read_bytes()
    cut(path)
    splits, folder, config = verified(opened(images, unreadable="skip"), tmp_path / "run")
    assert splits.train.num_examples == 11
    folder.claim(config, splits)
    path.write_bytes(whole)
    cut(images / "train/green/green_000.jpg")
    os.rename(images, tmp_path / "moved")
    again, _, _ = verified(opened(tmp_path / "moved", unreadable="skip"), tmp_path / "elsewhere")
    assert again.train.num_examples == 11
    os.rename(tmp_path / "moved", images)
    resumed, _, _ = verified(opened(images, unreadable="skip"), tmp_path / "run")
    assert [*resumed.train.labels_of] == [*splits.train.labels_of]
    with pytest.raises(DataError, match=r"green_000.jpg: one of the 17 image files"):
        verified(opened(images), tmp_path / "run")


def test_a_run_of_an_earlier_version_keeps_its_images(images, tmp_path):
    cut(images / "train/red/red_000.jpg")
    data, splits = opened(images, unreadable="skip")
    RunFolder(tmp_path / "run").claim(Config(data=data), splits)
    resumed, _, _ = verified((data, splits), tmp_path / "run")
    assert resumed.train.num_examples == 12


def test_verify_can_be_turned_off_and_needs_files(images, tmp_path):
    cut(images / "train/red/red_000.jpg")
    splits, _, _ = verified(opened(images, verify=False), tmp_path / "run")
    assert splits.train.num_examples == 12
    with pytest.raises(ConfigError, match="the source tfds has no image files to verify"):
        Config().override({"data.source": "tfds", "data.verify": "true"})
