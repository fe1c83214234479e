"""Every environment computes the same; ``goldens.py`` says what and writes it anew."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.environments import goldens


def golden(name):
    path = goldens.FOLDER / name
    assert path.exists(), f"{path} is missing; write it in the reference environment: {goldens.COMMAND}"
    return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)


@pytest.mark.parametrize("name", goldens.NETWORKS)
def test_logits_with_equal_weights(name):
    expected = np.array(golden("numbers.json")["logits"][name])
    np.testing.assert_allclose(goldens.logits(name), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "data"), goldens.PLANS)
def test_stage_plans(name, data):
    assert goldens.plan(name, data) == golden("numbers.json")["plans"][f"{name} {data}"]


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_the_first_hundred_examples(name):
    expected, found = golden(f"{name}.npz"), goldens.first_examples(name)
    assert len(found["image"]) == 100
    np.testing.assert_allclose(found["label"], expected["label"], atol=1e-6)
    np.testing.assert_allclose(found["image"].astype(int), expected["image"].astype(int), rtol=0, atol=1)
    assert len(np.unique(found["image"].reshape(100, -1), axis=0)) > 90


def test_ten_training_steps():
    expected = golden("numbers.json")["losses"]
    assert len(expected) == 10
    np.testing.assert_allclose(goldens.losses(), expected, rtol=1e-3)
