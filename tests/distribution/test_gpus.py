"""A GPU that TensorFlow does not see is told, with the command that installs what is missing."""

from __future__ import annotations

import logging
import pathlib

import pytest
import tensorflow as tf

from effnetv2_keras.distribution import gpus
from effnetv2_keras.distribution.strategy import make_strategy


@pytest.fixture
def driver(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program ``nvidia-smi`` on the PATH, and returns a function that says what it prints and its exit code."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path / "gpus")
    monkeypatch.setattr(gpus, "_DEVICE", tmp_path / "nvidia0")

    def answer(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<END\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)

    return answer


TWO = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1b2)\nGPU 1: NVIDIA T4 (UUID: GPU-3c4)"


def test_the_names_are_those_of_the_drivers_program(driver):
    driver(TWO)
    assert gpus.installed_gpus() == ("NVIDIA A100-SXM4-40GB", "NVIDIA T4")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_missed(driver, monkeypatch, hidden):
    driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpus.installed_gpus() == ()


def test_the_drivers_files_tell_if_its_program_fails(driver, tmp_path):
    driver("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", code=9)
    assert gpus.installed_gpus() == ()
    (tmp_path / "nvidia0").touch()
    assert gpus.installed_gpus() == ("an NVIDIA GPU",)
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H100\nIRQ:   \t\t 65\n")
    assert gpus.installed_gpus() == ("NVIDIA H100",)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow sees a GPU")
@pytest.mark.parametrize(
    ("with_cuda", "advice"),
    [(True, "Libraries of CUDA are missing"), (False, "built without CUDA. Run: pip uninstall tensorflow-cpu")],
)
def test_auto_warns_and_says_which_device_it_took(driver, monkeypatch, caplog, with_cuda, advice):
    driver(TWO)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: with_cuda)
    with caplog.at_level(logging.INFO, logger="absl"):
        assert "CPU" in make_strategy("auto").extended.worker_devices[0]
    warning, choice = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"This machine has NVIDIA A100-SXM4-40GB, NVIDIA T4, which TensorFlow {tf.__version__} does not see" in (
        warning.getMessage()
    )
    assert advice in warning.getMessage()
    assert f'pip install "tensorflow[and-cuda]=={tf.__version__}"' in warning.getMessage()
    assert choice.getMessage() == "--strategy=auto uses the CPU."


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow sees a GPU")
def test_auto_does_not_warn_without_a_gpu(driver, caplog):
    driver("No devices found.", code=6)
    with caplog.at_level(logging.INFO, logger="absl"):
        make_strategy("auto")
    assert [record.getMessage() for record in caplog.records] == ["--strategy=auto uses the CPU."]
