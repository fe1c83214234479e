"""That the other tests would notice calls of what TensorFlow deprecates."""

from __future__ import annotations

import pathlib

import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(("file", "noticed"), [("effnetv2_keras/module.py", True), ("tests/module.py", False)])
@pytest.mark.parametrize("turn", ["the first call", "the second call"])
def test_calls_of_the_package_are_noticed(file, noticed, turn, deprecated_calls):
    exec(compile("tf.test.is_gpu_available()", ROOT / file, "exec"), {"tf": tf})
    assert ["is_gpu_available" in call for call in deprecated_calls] == [True] * noticed
    deprecated_calls.clear()
