from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import socket
import sys
import threading
import time

import pytest
import tensorflow as tf

from effnetv2_keras.architecture import variants
from effnetv2_keras.weights import WeightsError, download, layout, load_weights, registry
from effnetv2_keras.weights.registry import PUBLISHED, Published
from tests.weights.filled import assert_same_weights, tiny, write_h5


class Handler(http.server.BaseHTTPRequestHandler):
    content, announced = b"", 0
    asked = ()

    def do_GET(self):  # noqa: N802
        self.asked.append(self.path)
        self.send_response(404 if "nowhere" in self.path else 200)
        self.send_header("Content-Length", str(self.announced or len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server of one file: its address, and the class that holds what it serves."""
    handler = type("OneFile", (Handler,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def saved():
    return tiny(seed=1)


@pytest.fixture
def publish(monkeypatch, server, saved, tmp_path):
    """Publishes the tiny network, filled, on the server."""
    address, handler = server
    write_h5(saved, tmp_path / "source.h5")
    handler.content = (tmp_path / "source.h5").read_bytes()
    monkeypatch.setattr(layout, "variant_of", lambda shapes: "tiny")

    def publish(md5=None, name="tiny.h5"):
        files = tuple(Published(f"{address}/{place}/{name}", md5) for place in ("top", "notop"))
        monkeypatch.setitem(PUBLISHED, ("tiny", "imagenet"), files)
        return hashlib.md5(handler.content).hexdigest()

    return publish


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
    assert os.listdir(tmp_path / "cache") == ["tiny.h5"]
    assert server[1].asked == ["/notop/tiny.h5"]  # the classifier has 5 classes, not 1000


@pytest.mark.parametrize(("settings", "place"), [({"num_classes": 1000}, "top"), ({"include_top": False}, "notop")])
def test_the_file_with_the_classifier_is_taken_where_it_fits(settings, place, publish, server, tmp_path):
    publish(publish())
    load_weights(tiny(**settings), "imagenet", cache_dir=tmp_path / "cache")
    assert server[1].asked == [f"/{place}/tiny.h5"]


def test_without_a_published_checksum_that_is_said(publish, tmp_path, caplog):
    md5 = publish()
    load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert "has no published checksum, so the download was not checked" in caplog.text
    assert md5 in caplog.text


def test_a_damaged_download_leaves_nothing(publish, tmp_path):
    publish("0" * 32)
    with pytest.raises(WeightsError, match=r"is damaged: its MD5 is \w{32}, but should be 0{32}\. Download http"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_download_that_breaks_off_leaves_nothing(publish, server, tmp_path):
    publish()
    server[1].announced = len(server[1].content) + 1000
    with pytest.raises(WeightsError, match="was interrupted: .*Download http"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_file_that_the_server_does_not_have(publish, tmp_path):
    publish(name="nowhere.h5")
    with pytest.raises(WeightsError, match="Cannot download .*404"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_in_the_cache_is_refused(publish, server, tmp_path):
    publish(publish())
    (tmp_path / "tiny.h5").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"tiny\.h5 is damaged: .*Delete the file and try again"):
        load_weights(tiny(), "imagenet", cache_dir=tmp_path)
    assert server[1].asked == []


@contextlib.contextmanager
def silent_server():
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/silent.h5"


@pytest.mark.parametrize("kind", ["refused", "silent", "no such host"])
def test_offline_fails_fast_with_one_message_and_leaves_nothing(kind, tmp_path):
    with silent_server() as silent:
        url = {"refused": "http://127.0.0.1:9/weights.h5", "no such host": "http://host.invalid/weights.h5"}.get(
            kind, silent
        )
        path = tmp_path / "cache" / url.rpartition("/")[2]
        started = time.monotonic()
        with pytest.raises(WeightsError) as caught:
            download.download(url, path, md5=None)
        assert time.monotonic() - started < 2
    for text in (f"Cannot download {url}", f"save it as {path.name} in the folder {path.parent}"):
        assert text in str(caught.value)
    assert not (tmp_path / "cache").exists()


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
