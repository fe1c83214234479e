from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.models import build_model
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.runs.trained import Trained, load_trained
from tests.made_runs import CLASS_NAMES, make_run, move_weights, run_config
from tests.tiny import TINY


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    if IS_KERAS_3:  # training needs Keras 2
        tf.keras.utils.set_random_seed(0)
        model = build_model(TINY, num_classes=len(CLASS_NAMES))
        move_weights(model, np.random.default_rng(0))
        return Trained(model, run_config(), CLASS_NAMES, 10)
    return load_trained(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def occupied(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the files of an earlier export to SavedModel."""
    saved = tmp_path / "saved"
    (saved / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (saved / name).write_bytes(b"old")
    return saved
