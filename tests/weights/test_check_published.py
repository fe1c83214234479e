"""The check of published files, on files of a server on the loopback interface."""

from __future__ import annotations

import pytest

from benchmarks import check_published
from effnetv2_keras.weights import download
from effnetv2_keras.weights.published import PUBLISHED, TIMM
from tests.shallow import one_block_a_stage
from tests.weights.filled import write_h5
from tests.weights.serving import serving
from tests.weights.test_hdf5 import keras_model


@pytest.fixture
def check(monkeypatch, tmp_path, capsys):
    """Runs the check against a server; returns the exit status and the lines."""
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HF_ENDPOINT", "")
    for key, value in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, key, value)  # restores what the check replaces

    def check(address, *arguments):
        status = check_published.main(["--base_url", address, *arguments])
        return status, capsys.readouterr().out.splitlines()

    return check


def test_every_file_is_checked():
    files = list(check_published.published_files())
    assert len({file.title for file in files}) == len(files)
    addresses = {file.url for published in PUBLISHED.values() for file in published}
    assert len(files) == len(addresses) + len(TIMM)
    assert max(len(file.title) for file in files) <= 40


def test_without_a_network_every_row_says_why(check):
    status, lines = check("http://127.0.0.1:9", "--only", "efficientnetv2-b0")
    assert status == 1
    assert lines[-1] == "0 of 4 files are as published."
    assert sum(line.endswith("failed") for line in lines) == 4
    assert sum("Connection refused" in line for line in " ".join(lines).split("failed")) == 4
    assert max(map(len, lines)) <= 80


def test_a_name_that_matches_nothing(check, capsys):
    with pytest.raises(SystemExit):
        check("http://127.0.0.1:9", "--only", "resnet")
    assert "no published file has 'resnet' in its name" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "name"), [("efficientnetv2-b0",) * 2, ("efficientnet-b0", "efficientnetb0")])
def test_a_file_of_keras_gives_the_logits_of_keras(variant, name, check, tmp_path):
    with serving() as server, one_block_a_stage():
        write_h5(keras_model(variant, input_shape=(224, 224, 3)), tmp_path / "a.h5")
        server.files[f"/{name}.h5"] = (tmp_path / "a.h5").read_bytes()
        status, lines = check(server.address, "--only", f"{variant} imagenet", "--ignore_checksums")
    row = lines[1].split()
    assert (row[0], row[4]) == (variant, "yes")
    assert float(row[5]) < 1e-4
    assert status == 1  # the file without a classifier is not there
    assert "404" in " ".join(lines)
