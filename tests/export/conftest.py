from __future__ import annotations

import pathlib

import pytest

from effnetv2_keras.training.checkpoints import Trained, load_trained
from tests.runs import make_run
from tests.tiny import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return load_trained(make_run(tmp_path_factory.mktemp("run")), spec=TINY)


@pytest.fixture
def occupied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder that looks like an earlier export of a SavedModel."""
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (saved / name).write_bytes(b"old")
    return saved
