"""Runs Keras 3's own tests of its applications with the networks of this package in place of Keras'.

    python -m tests.models.keras_own_tests EfficientNetV2B0_ EfficientNetB0_

The arguments are parts of the tests' names; without any, all EfficientNets are tested, which takes an hour. Tests that
download ImageNet weights are left out.
"""

from __future__ import annotations

import pathlib
import sys

import keras.src.applications
import pytest
from keras.src.applications import efficientnet, efficientnet_v2

import effnetv2_keras

REPLACED = [
    (module, name)
    for module in (efficientnet, efficientnet_v2)
    for name in vars(module)
    if name.startswith("EfficientNet") and hasattr(effnetv2_keras, name)
]


def main() -> int:
    for module, name in REPLACED:
        setattr(module, name, getattr(effnetv2_keras, name))
    chosen = " or ".join(sys.argv[1:] or ["EfficientNet"])
    file = pathlib.Path(keras.src.applications.__file__).with_name("applications_test.py")
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", f"({chosen}) and not test_application_base"]
    return int(pytest.main([str(file), "--rootdir", str(file.parent), "-c", "/dev/null", *options]))


if __name__ == "__main__":
    sys.exit(main())
