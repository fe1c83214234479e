"""Which files below a folder are images. The image files are empty: nothing here decodes them."""

import logging
import os
import pathlib

import pytest

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.sources.walking import find_image_files, is_leftover
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.modes.predict import PredictError, find_images

LEFTOVERS = (
    ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".DS_Store", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "#recycle",
    "System Volume Information", "lost+found", ".Trash-1000", ".git", "__pycache__", "cat~", ".~lock.cat#", "~$cat",
)  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder with 4 images in each of ``cat`` and ``dog``."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        touch(*(root / name / f"{number}.jpg" for number in range(4)))
    return root


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def images_of(root, **settings):
    splits = open_splits(DataConfig(data_dir=str(root), **settings))
    assert splits.train.class_names == ("cat", "dog")
    paths = [path for source in (splits.train, splits.evaluation) for path, _ in source.extents()]
    return sorted(str(pathlib.Path(path).relative_to(root)) for path in paths)


def test_leftovers_are_neither_classes_nor_images(photos):
    before = images_of(photos)
    for name in LEFTOVERS:
        assert is_leftover(name)
        touch(
            photos / name / "cat" / "0.jpg",
            photos / "cat" / name / "0-copy.jpg",
            photos / "dog" / "deep" / name / "1.jpg",
        )
    touch(photos / "cat" / "._0.jpg", photos / "cat" / ".hidden.png", photos / "dog" / "~$1.jpg")
    assert images_of(photos) == before
    assert [str(path.relative_to(photos)) for path in find_images([photos])] == before
    hidden = photos / "cat" / ".hidden.png"
    assert find_images([hidden]) == [hidden]  # the user names it


def test_a_hidden_data_folder_is_read(tmp_path):
    touch(*(tmp_path / ".cache" / "@eaDir" / name / f"{number}.jpg" for name in ("cat", "dog") for number in range(2)))
    assert len(images_of(tmp_path / ".cache" / "@eaDir")) == 4


def test_a_folder_with_the_name_of_an_image_is_a_folder(photos):
    touch(photos / "cat" / "album.jpg" / "0.png")
    (photos / "dog" / "empty.png").mkdir()
    assert {"cat/album.jpg/0.png"} == {name for name in images_of(photos) if "album" in name or "empty" in name}


def test_links_are_followed_once(photos, tmp_path):
    disk = tmp_path / "disk"
    touch(disk / "a.jpg", disk / "deep" / "b.jpg", photos / "cat" / "z" / "own.jpg")
    for link, target in {
        "cat/a_disk": disk, "cat/b_again": disk / "deep", "cat/a_z": photos / "cat" / "z", "cat/up": photos,
        "cat/self": photos / "cat", "dog/cat_dog": photos / "dog", "dog/4.jpg": disk / "a.jpg",
    }.items():  # fmt: skip
        os.symlink(target, photos / link)
    os.symlink(photos / "cat", disk / "deep" / "back")
    assert [name for name in images_of(photos) if not name[4:5].isdigit()] == [
        "cat/a_disk/a.jpg", "cat/a_disk/deep/b.jpg", "cat/z/own.jpg",
    ]  # fmt: skip
    assert "dog/4.jpg" in images_of(photos)


@pytest.mark.parametrize("link", ["cat/broken.jpg", "cat/disk", "emu", "cat/deep/round.png"])
def test_broken_links_are_named_at_once_or_left_out(photos, caplog, link):
    before = images_of(photos)
    path = photos / link
    path.parent.mkdir(exist_ok=True)
    os.symlink(path if path.stem == "round" else "/nowhere/x.jpg", path)
    for act in (images_of, lambda root: find_images([root])):
        with pytest.raises(DataError, match=f"cannot open .*{link}. Repair or remove .*data.unreadable=skip"):
            act(photos)
    assert images_of(photos, unreadable="skip") == before
    assert len(find_images([photos], unreadable="skip")) == 8
    assert str(path) in caplog.text


def test_a_broken_link_to_a_split_is_named(photos, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(photos, root / "train")
    os.symlink(tmp_path / "unmounted", root / "val")
    with pytest.raises(DataError, match="cannot open .*root/val. Repair"):
        images_of(root)


def test_a_link_from_evaluation_to_training_images_is_refused(photos, tmp_path):
    root = tmp_path / "root"
    (root / "val").mkdir(parents=True)
    os.symlink(photos, root / "train")
    for name in ("cat", "dog"):
        os.symlink(root / "train" / name, root / "val" / name)
    with pytest.raises(DataError, match="8 of 8 evaluation images are also training images, for example in .*val/cat"):
        images_of(root)


def test_what_is_left_out_is_counted(photos, caplog):
    touch(*(photos / "cat" / f"{number}.psd" for number in range(3)), *(photos / "dog" / f"{n}.txt" for n in range(6)))
    touch(photos / "dog" / "README", photos / "labels.json", photos / "cover.jpg")
    with caplog.at_level(logging.INFO, "absl"):
        assert len(images_of(photos)) == 8
    assert caplog.text.count("left out 11 files: 6 .txt, 3 .psd, 1 without a suffix, 1 .json.") == 1
    assert "left out 1 images that are in no class folder: " in caplog.text


def test_losing_most_images_is_refused(photos, caplog):
    touch(*(photos / "cat" / f"{number}.PSD" for number in range(5)), photos / "cat" / "notes.txt")
    message = "Most images of 'cat' in .*: 5 .psd, 1 .txt, beside 4 files that can be read"
    with pytest.raises(DataError, match=message):
        images_of(photos)
    with pytest.raises(DataError, match="Most images of .*photos/cat"):
        find_images([photos / "cat"])
    assert len(images_of(photos, unreadable="skip")) == 8
    assert "left out 6 files: 5 .psd, 1 .txt" in caplog.text


def test_an_empty_class_says_what_is_there(photos):
    touch(photos / "emu" / "a.xyz")
    with pytest.raises(DataError, match=r"no images \(.*\) of 'emu' in .*, only 1 .xyz. Add images or remove"):
        images_of(photos)
    with pytest.raises(PredictError, match=r"no images .* below the folder .*emu, only 1 .xyz"):
        find_images([photos / "emu"])


def test_special_files_are_no_images(photos):
    os.mkfifo(photos / "cat" / "pipe.jpg")
    assert find_image_files(photos / "cat").images == [str(photos / "cat" / f"{number}.jpg") for number in range(4)]
