from __future__ import annotations

import hashlib
import sys
import types

import pytest
import tensorflow as tf

from effnetv2_keras.architecture import variants
from effnetv2_keras.weights import WeightsError, layout, load_weights, registry
from effnetv2_keras.weights.registry import PUBLISHED, Published
from tests.weights.filled import assert_same_weights, tiny, write_h5
from tests.weights.serving import serving


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of files; the folders of Keras and of this package are empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with serving() as server:
        yield server


@pytest.fixture
def saved():
    return tiny(seed=1)


@pytest.fixture
def publish(monkeypatch, server, saved, tmp_path):
    """Publishes the tiny network, filled, on the server."""
    write_h5(saved, tmp_path / "source.h5")
    content = (tmp_path / "source.h5").read_bytes()
    server.files = {f"/{place}/tiny.h5": content for place in ("top", "notop")}
    monkeypatch.setattr(layout, "variant_of", lambda shapes: "tiny")

    def publish(md5=None, name="tiny.h5"):
        files = tuple(Published(f"{server.address}/{place}/{name}", md5) for place in ("top", "notop"))
        monkeypatch.setitem(PUBLISHED, ("tiny", "imagenet"), files)
        return hashlib.md5(content).hexdigest()

    return publish


def left(folder):
    """Returns the names of files in a cache folder that are more than a lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_every_variant_has_its_files():
    assert {name for _, name in PUBLISHED} == set(registry.NAMES)
    assert {variant for variant, _ in PUBLISHED} == set(variants.MODELS) - {
        "efficientnet-b3",
        "efficientnet-b8",
        "efficientnetv2-nano",
        "efficientnetv2-micro",
    }
    addresses = [file.url for files in PUBLISHED.values() for file in dict.fromkeys(files)]
    assert len(set(addresses)) == len(addresses)
    assert ("efficientnetv2-xl", "imagenet") not in PUBLISHED
    assert PUBLISHED["efficientnetv2-xl", "imagenet21k"][0].url.endswith("/v2/efficientnetv2-xl-21k.tgz")


def test_addresses_and_checksums_are_those_of_keras():
    """Against the constants of the installed Keras."""
    for variant, module in (("efficientnetv2-b0", "efficientnet_v2"), ("efficientnet-b0", "efficientnet")):
        keras = sys.modules[getattr(tf.keras.applications, module).preprocess_input.__module__]
        family = variant.removesuffix("-b0")
        for size, hashes in keras.WEIGHTS_HASHES.items():
            ours = f"{family}-{size.removeprefix('-')}"
            files = PUBLISHED[{"efficientnet-b3": "efficientnet-b3-keras"}.get(ours, ours), "imagenet"]
            stem = f"{family}-{size.removeprefix('-')}" if family.endswith("v2") else f"efficientnet{size}"
            assert tuple(file.md5 for file in files) == hashes
            assert [file.url for file in files] == [
                f"{keras.BASE_WEIGHTS_PATH}{stem}{end}" for end in (".h5", "_notop.h5")
            ]


def test_a_file_is_downloaded_once_and_checked(publish, server, saved, tmp_path, monkeypatch):
    publish(publish())
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    for _ in range(2):
        model = tiny()
        load_weights(model, "imagenet")
        assert_same_weights(model, saved)
    assert left(tmp_path / "cache") == ["tiny.h5"]
    assert [path for _, path, _ in server.asked] == ["/notop/tiny.h5"]  # the classifier has 5 classes, not 1000


@pytest.mark.parametrize(("settings", "place"), [({"num_classes": 1000}, "top"), ({"include_top": False}, "notop")])
def test_the_file_with_the_classifier_is_taken_where_it_fits(settings, place, publish, server, tmp_path):
    publish(publish())
    load_weights(tiny(**settings), "imagenet", cache_dir=tmp_path / "cache")
    assert [path for _, path, _ in server.asked] == [f"/{place}/tiny.h5"]


def test_without_a_published_checksum_that_is_said(publish, tmp_path, caplog):
    md5 = publish()
    load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert "has no published checksum, so the download was not checked" in caplog.text
    assert md5 in caplog.text


def test_a_damaged_download_leaves_nothing(publish, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda _: None))
    publish("0" * 32)
    with pytest.raises(WeightsError, match=r"The file at http.* is not the published one.* md5:0{32} but got \w{32}"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert left(tmp_path / "cache") == []


def test_a_damaged_file_in_the_cache_is_replaced(publish, server, saved, tmp_path, caplog):
    publish(publish())
    (tmp_path / "tiny.h5").write_bytes(b"something else")
    model = tiny()
    load_weights(model, "imagenet", cache_dir=tmp_path)
    assert_same_weights(model, saved)
    assert f"{tmp_path / 'tiny.h5'} is not used: its MD5 is" in caplog.text


def test_the_file_of_keras_is_used(publish, server, saved, tmp_path, caplog):
    """If it is the published one."""
    keras = tmp_path / "keras" / "models"
    keras.mkdir(parents=True)
    (tmp_path / "source.h5").rename(keras / "tiny.h5")
    publish(publish())
    model = tiny()
    load_weights(model, "imagenet", cache_dir=tmp_path / "cache")
    assert_same_weights(model, saved)
    assert server.asked == []
    (keras / "tiny.h5").write_bytes(b"something else")
    load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert len(server.asked) == 1
    assert f"{keras / 'tiny.h5'} is not used: its MD5 is" in caplog.text
    assert (keras / "tiny.h5").read_bytes() == b"something else"


def test_a_file_that_cannot_be_downloaded_says_what_to_do(publish, server, tmp_path):
    publish(name="nowhere.h5")
    with pytest.raises(WeightsError) as caught:
        load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert str(caught.value) == (
        f"Cannot download {server.address}/notop/nowhere.h5: the server answers 404 Not Found. nowhere.h5 was looked "
        f"for in {tmp_path / 'cache'} and {tmp_path / 'keras' / 'models'}. Check the connection; or download "
        f"{server.address}/notop/nowhere.h5 elsewhere and put the file into {tmp_path / 'cache'}. To start from random "
        "weights instead, use --hparam_str=train.ft_init_ckpt= (in Python: weights=None)."
    )


def test_a_variant_without_such_weights_says_which_there_are(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no published weights 'imagenet' for a network that is not a named"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path)
    monkeypatch.setattr(layout, "variant_of", lambda shapes: "efficientnet-b0")
    with pytest.raises(
        WeightsError, match="no published weights 'imagenet21k' for efficientnet-b0. Use one of imagenet"
    ):
        load_weights(tiny(), "imagenet21k", cache_dir=tmp_path)
    monkeypatch.setattr(layout, "variant_of", lambda shapes: "efficientnet-b3")
    with pytest.raises(WeightsError, match="for efficientnet-b3. All published ones are for 'efficientnet-b3-k"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path)
