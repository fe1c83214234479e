"""Small copies of large images: what is copied, when it is made anew, and what training sees."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data import small_copies
from effnetv2_keras.data.decode import decode
from effnetv2_keras.data.small_copies import describe_copies, describe_reading, side_of_copies, with_small_copies
from effnetv2_keras.data.sources.base import FileSource, Shard
from effnetv2_keras.errors import ConfigError

SIZES = {"wide.jpg": (320, 160), "turned.jpg": (160, 240), "gray.png": (200, 200), "small.png": (60, 50)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNETV2_KERAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "small"


@pytest.fixture
def as_jpeg(monkeypatch):
    monkeypatch.setattr(small_copies, "_DECODED_BYTES", 0)


@pytest.fixture(params=[".tensor", ".jpg"])
def suffix(request):
    """The suffix of the copies, once decoded, once as JPEG files."""
    if request.param == ".jpg":
        request.getfixturevalue("as_jpeg")
    return request.param


def config_for(**changes):
    settings = {"data.cache": "disk", "data.crop_area": "0.5|1", "progressive.image_size.end": 32}
    return Config().override({**settings, "progressive.image_size.start": 16, **changes})


def photos(folder, names=tuple(SIZES)):
    """Returns a source of images whose red rises to the right and green downwards; one is stored turned."""
    folder.mkdir(exist_ok=True)
    for name in names:
        width, height = SIZES[name]
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        image = PIL.Image.fromarray(np.stack([across, down, 0 * down], -1).round().astype(np.uint8))
        exif = PIL.Image.Exif()
        if name == "turned.jpg":
            image, exif[0x0112] = image.transpose(PIL.Image.Transpose.ROTATE_90), 6
        image.convert("L" if name == "gray.png" else "RGB").save(folder / name, exif=exif)
    return FileSource([str(folder / name) for name in names], [0] * len(names), ["a", "b"])


def contents(source):
    """Returns the decoded image and the name of every record."""
    reading = small_copies.Reading(exif_orientation=True)
    records = source.ordered(Shard()).as_numpy_iterator()
    return {pathlib.Path(one["name"].decode()).name: decode(tf.constant(one["image"]), reading) for one in records}


def made(cache):
    """Returns the files of the copies."""
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_the_side_leaves_the_smallest_crop_as_large_as_the_largest_stage():
    assert side_of_copies(config_for()) == 56  # 32 / sqrt(0.5 * 0.75) = 52.3, a multiple of 8
    assert side_of_copies(config_for(**{"data.crop_area": "1|1", "data.crop_aspect": "1|1"})) == 32


def test_copies_are_upright_small_and_of_the_same_colors(tmp_path, cache, suffix):
    source = photos(tmp_path / "photos")
    told = []
    images = contents(with_small_copies(source, config_for(), lambda *counts: told.append(counts)))
    assert told == [(4, 4) if suffix == ".tensor" else (3, 3)]  # as a JPEG file, a small image is read itself
    assert {path.suffix for path in made(cache)} == {suffix}
    shapes = {name: tuple(image.shape) for name, image in images.items()}
    assert shapes == {
        "wide.jpg": (56, 112, 3), "turned.jpg": (84, 56, 3), "gray.png": (56, 56, 3), "small.png": (50, 60, 3)
    }  # fmt: skip
    for name in ("wide.jpg", "turned.jpg"):
        height, width, _ = shapes[name]
        across, down = np.meshgrid((np.arange(width) + 0.5) / width * 255, (np.arange(height) + 0.5) / height * 255)
        np.testing.assert_allclose(images[name][..., 0], across, atol=10)
        np.testing.assert_allclose(images[name][..., 1], down, atol=10)


def test_few_images_are_decoded_and_many_are_jpeg_files(tmp_path, cache, monkeypatch):
    source = photos(tmp_path / "photos")  # four images, copies of 56 px
    monkeypatch.setattr(small_copies, "_DECODED_BYTES", 4 * 56 * 56 * 4 / 3 * 3)
    (record,) = with_small_copies(source, config_for()).ordered(Shard()).take(1)
    assert record["image"].dtype == tf.uint8
    monkeypatch.setattr(small_copies, "_DECODED_BYTES", 4 * 56 * 56 * 4 / 3 * 3 - 1)
    (record,) = with_small_copies(source, config_for()).ordered(Shard()).take(1)
    assert record["image"].dtype == tf.string


def test_an_image_without_a_copy_makes_all_of_them_jpeg_files(tmp_path, cache):
    source = photos(tmp_path / "photos", ["wide.jpg", "turned.jpg", "gray.png"])
    (tmp_path / "photos" / "gray.png").write_bytes(b"no image")
    records = [*with_small_copies(source, config_for()).ordered(Shard()).as_numpy_iterator()]
    assert [one["image"][:2] for one in records] == [b"\xff\xd8", b"\xff\xd8", b"no"]


def test_the_plan_tells_of_copies_only_if_usual_images_have_some(tmp_path, cache):
    large = photos(tmp_path / "photos", ["wide.jpg"])
    assert f"copies of 56 px on the shorter side, which are made before the first step, in {cache}" in describe_copies(
        large, config_for()
    )
    assert not describe_copies(large, Config())
    assert not describe_copies(photos(tmp_path / "photos", ["small.png"]), config_for())


def test_copies_are_made_once_and_again_after_a_change(tmp_path, cache, suffix):
    source = photos(tmp_path / "photos")
    with_small_copies(source, config_for())
    first = made(cache)
    counts = []
    with_small_copies(source, config_for(), lambda *told: counts.append(told))
    assert not counts
    PIL.Image.new("RGB", (300, 300), (9, 200, 9)).save(tmp_path / "photos" / "wide.jpg")
    images = contents(with_small_copies(source, config_for(), lambda *told: counts.append(told)))
    assert counts == [(1, 1)]
    np.testing.assert_allclose(images["wide.jpg"], np.broadcast_to([9, 200, 9], [56, 56, 3]), atol=3)
    assert len(made(cache)) == len(first) + 1


def test_an_image_that_cannot_be_decoded_is_left_as_it_is(tmp_path, cache, as_jpeg):
    source = photos(tmp_path / "photos", ["wide.jpg", "turned.jpg"])
    whole = (tmp_path / "photos" / "wide.jpg").read_bytes()
    (tmp_path / "photos" / "wide.jpg").write_bytes(whole[: len(whole) // 2])
    records = list(with_small_copies(source, config_for()).ordered(Shard()).as_numpy_iterator())
    assert records[0]["image"] == whole[: len(whole) // 2]
    assert len(made(cache)) == 1


def test_a_stopped_copy_keeps_what_was_done(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(small_copies, "_GROUP", 1)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_small_copies(photos(tmp_path / "photos"), config_for(), stop)
    assert len(made(cache)) == 1
    assert not list(cache.rglob(".*"))


@pytest.mark.parametrize(
    ("free", "side", "told"),
    [
        (1000, 160, r"reads the image files themselves, because JPEG copies would take 0\.0 GB of the 0\.0 GB free in"),
        (20_000, 56, "reads 3 JPEG copies of 56 px and 1 of the image files themselves, because decoded copies would"),
    ],
)
def test_a_disk_without_room_is_told_once(tmp_path, cache, monkeypatch, caplog, free, side, told):
    monkeypatch.setattr(small_copies.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    source = photos(tmp_path / "photos")
    assert contents(with_small_copies(source, config_for()))["wide.jpg"].shape == (side, 2 * side, 3)
    (record,) = caplog.records
    assert re.search(told, record.getMessage())


@pytest.mark.parametrize("fills", [1, 2])
def test_a_disk_that_fills_while_copies_are_made_is_told(tmp_path, cache, monkeypatch, caplog, fills):
    """After as many copies, nothing more can be written."""
    write, written = small_copies._write, []

    def full(path, content):
        written.append(path)
        if len(written) > fills:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(small_copies, "_write", full)
    monkeypatch.setattr(small_copies.os, "cpu_count", lambda: 1)
    images = contents(with_small_copies(photos(tmp_path / "photos"), config_for()))
    assert images["wide.jpg"].shape == (160, 320, 3)
    (record,) = caplog.records
    assert "reads the image files themselves, because JPEG copies cannot be written" in record.getMessage()
    assert "No space left on device" in record.getMessage()
    assert len(made(cache)) == fills


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path, cache, caplog):
    cache.parent.write_bytes(b"a file")
    images = contents(with_small_copies(photos(tmp_path / "photos"), config_for()))
    assert images["wide.jpg"].shape == (160, 320, 3)
    (record,) = caplog.records
    assert "copies cannot be written" in record.getMessage()


def test_copies_can_be_read_by_whom_the_umask_allows(tmp_path, cache, suffix):
    other = tmp_path / "other"
    other.write_bytes(b"")
    with_small_copies(photos(tmp_path / "photos"), config_for())
    assert {path.stat().st_mode for path in made(cache)} == {other.stat().st_mode}


def test_what_training_reads_is_described(tmp_path, cache, monkeypatch):
    source = photos(tmp_path / "photos")

    def described(**changes):
        config = config_for(**changes)
        return describe_reading(with_small_copies(source, config), config)

    assert described() == "4 decoded copies of 56 px"
    assert described(**{"data.cache": "none"}) == ""
    monkeypatch.setattr(small_copies, "_DECODED_BYTES", 0)
    assert described() == "3 JPEG copies of 56 px and 1 of the image files themselves"


def test_a_copy_that_is_gone_is_explained(tmp_path, cache, suffix):
    source = with_small_copies(photos(tmp_path / "photos"), config_for())
    assert source.check_integrity() is None
    made(cache)[0].unlink()
    assert "Run the same command again" in source.check_integrity()


def test_other_pipelines_and_sources_have_no_copies(tmp_path, cache):
    source = photos(tmp_path / "photos")
    assert with_small_copies(source, Config()) is source
    assert with_small_copies(source, config_for(**{"data.cache": "auto", "data.pipeline": "original_v2"})) is source
    with pytest.raises(ConfigError, match="data.cache to auto or none"):
        config_for(**{"data.pipeline": "original_v2"})
    with pytest.raises(ConfigError, match="the source is tfds"):
        config_for(**{"data.source": "tfds"})
