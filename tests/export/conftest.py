from __future__ import annotations

import pathlib

import pytest

from effnetv2_keras.runs.trained import Trained, load_trained
from tests.made_runs import make_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return load_trained(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def occupied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the files of an earlier export to SavedModel."""
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (saved / name).write_bytes(b"old")
    return saved
