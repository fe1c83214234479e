"""Downloads from a real server on the loopback interface."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from effnetv2_keras.weights import download
from effnetv2_keras.weights.download import DownloadError
from tests.weights.serving import serving

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def server():
    with serving(files={"/weights.h5": CONTENT}) as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """Downloads the file and returns its content."""

    def fetch(md5=MD5, name="weights.h5"):
        path = tmp_path / "cache" / name
        download.download(f"{server.address}/{name}", path, md5=md5)
        return path.read_bytes()

    return fetch


def left(tmp_path):
    """Returns the names of files in the cache folder that are more than a lock."""
    return sorted(name for name in os.listdir(tmp_path / "cache") if not name.endswith(".lock"))


def test_a_file_is_downloaded_once(fetch, server, tmp_path):
    assert fetch() == fetch() == CONTENT
    assert server.sent == [len(CONTENT)]
    assert left(tmp_path) == ["weights.h5"]


@pytest.mark.parametrize("md5", [MD5, None])
def test_after_an_interruption_only_the_rest_is_downloaded(md5, fetch, server, tmp_path, capfd):
    """With a checksum, and without one by the server's tag."""
    server.cuts = [70_000]
    assert fetch(md5) == CONTENT
    first, second = server.sent
    assert first == 70_000
    assert second < 50_000  # what was in a buffer is lost
    assert left(tmp_path) == ["weights.h5"]
    assert "bytes read" in capfd.readouterr().err


def test_the_next_command_goes_on(fetch, server, tmp_path, monkeypatch):
    server.cuts = [70_000]
    with monkeypatch.context() as patch:
        patch.setattr(download, "ATTEMPTS", 1)
        with pytest.raises(DownloadError, match="Cannot download .*bytes read"):
            fetch()
    assert left(tmp_path) == [".weights.h5.etag", ".weights.h5.part"]
    assert fetch() == CONTENT
    assert server.sent[1] < 50_000
    assert left(tmp_path) == ["weights.h5"]


def test_a_server_without_ranges_sends_everything_again(fetch, server):
    server.ranges, server.cuts = False, [70_000]
    assert fetch() == CONTENT
    assert server.sent == [70_000, len(CONTENT)]


@pytest.mark.parametrize("tagged", [True, False])
def test_a_file_that_changed_meanwhile_is_not_mixed(tagged, fetch, server, tmp_path, monkeypatch):
    server.tagged, server.cuts = tagged, [70_000]
    with monkeypatch.context() as patch:
        patch.setattr(download, "ATTEMPTS", 1)
        with pytest.raises(DownloadError):
            fetch(None)
    server.files["/weights.h5"] = CONTENT[::-1]
    assert fetch(None) == CONTENT[::-1]
    assert server.sent[1] == len(CONTENT)


def test_a_wrong_part_is_thrown_away(fetch, server, tmp_path):
    """Its continuation has another checksum, so the whole file is downloaded; a part that is too long likewise."""
    for part in (b"x" * 50_000, b"x" * 200_000):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / ".weights.h5.part").write_bytes(part)
        assert fetch() == CONTENT
        assert server.sent[-1] == len(CONTENT)
        (tmp_path / "cache" / "weights.h5").unlink()


def test_with_a_wrong_checksum_it_is_downloaded_once_more(fetch, server, tmp_path):
    with pytest.raises(DownloadError, match=rf"file at {server.address}/weights.h5 is not .*md5:0{{32}} but got {MD5}"):
        fetch("0" * 32)
    assert server.sent == [len(CONTENT)] * 2
    assert left(tmp_path) == []


def test_a_damaged_file_is_replaced(fetch, server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.h5").write_bytes(b"something else")
    assert fetch() == CONTENT


def test_an_absent_file_is_asked_for_once(fetch, server):
    with pytest.raises(DownloadError, match="Cannot download .*nowhere.h5: the server answers 404 Not Found"):
        fetch(name="nowhere.h5")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(fetch, server, capfd):
    server.refusals = [503, 429]
    assert fetch() == CONTENT
    assert "the server answers 503 Service Unavailable; trying again in 0.01 s" in capfd.readouterr().err


def test_a_server_that_stays_busy_is_given_up(fetch, server):
    server.refusals = [503] * 9
    with pytest.raises(DownloadError, match="the server answers 503"):
        fetch()
    assert len(server.asked) == download.ATTEMPTS


def test_the_server_may_ask_for_a_pause(monkeypatch):
    for text, least, most in (("7", 7, 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("soon", 0, 0)):
        response = download.requests.Response()
        response.headers["Retry-After"] = text
        assert least <= download._asked_pause(download.requests.HTTPError(response=response)) <= most


def test_a_slow_download_is_shown_and_goes_on(fetch, server, monkeypatch, capfd):
    """It takes much longer than the limit, which is for one read."""
    server.files["/weights.h5"] = CONTENT[:20_000]
    server.pause = 0.03
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.3))
    monkeypatch.setattr(download, "REPORT_SECONDS", 0.1)
    monkeypatch.setattr(download, "_CHUNK", 1000)
    assert fetch(None) == CONTENT[:20_000]
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == f"Downloading weights.h5 from {server.address}/weights.h5"
    assert len(lines) > 4
    assert lines[-1] == "weights.h5: 0.0 of 0.0 MB"


def test_a_silent_server_is_given_up(fetch, server, monkeypatch):
    server.pause = 0.5
    server.files["/weights.h5"] = CONTENT[:2000]
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.05))
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with pytest.raises(DownloadError, match="Cannot download"):
        fetch(None)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/weights.h5", "Connection refused"),
        ("http://host.invalid/weights.h5", "Failed to resolve 'host.invalid'"),
        ("htp://host/weights.h5", "No connection adapters"),
    ],
)
def test_without_a_server_the_reason_is_plain(address, reason, tmp_path):
    with pytest.raises(DownloadError, match=f"Cannot download {address}: .*{reason}") as caught:
        download.download(address, tmp_path / "weights.h5", md5=None)
    assert "object at 0x" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DownloadError, match=r"Cannot write .*weights\.h5: "):
        download.download("http://127.0.0.1:9/weights.h5", tmp_path / "cache" / "weights.h5", md5=None)


def test_threads_share_one_download(fetch, server):
    server.pause = 0.002
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: fetch(), range(4))) == [CONTENT] * 4
    assert server.sent == [len(CONTENT)]


def test_processes_share_one_download(fetch, server, tmp_path):
    server.pause = 0.01
    command = (
        "import sys, pathlib, effnetv2_keras.weights.download as download; "
        "download.download(sys.argv[1], pathlib.Path(sys.argv[2]), md5=sys.argv[3])"
    )
    arguments = [f"{server.address}/weights.h5", str(tmp_path / "cache" / "weights.h5"), MD5]
    other = subprocess.Popen([sys.executable, "-c", command, *arguments])
    while not server.asked and other.poll() is None:
        pass
    assert fetch() == CONTENT
    assert other.wait() == 0
    assert server.sent == [len(CONTENT)]


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    progress = download.Progress("noisy_student_efficientnet-b0.tar.gz", "http://host/x")
    with progress._console.capture() as shown, progress.shown():
        progress.update(5_000_000, 20_000_000)
        progress._bar.refresh()
    assert "5.0/20.0 MB" in shown.get()
    assert max(map(len, rich_lines(shown.get()))) <= 80


def rich_lines(text):
    """Returns the lines of a terminal without its codes."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").splitlines()
