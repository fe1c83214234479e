"""Whether TensorFlow sees a GPU or TPU, and what to install if it does not see the machine's NVIDIA GPUs."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import tensorflow as tf

_DRIVER = pathlib.Path("/proc/driver/nvidia/gpus")
_DEVICE = pathlib.Path("/dev/nvidia0")
_PATIENCE = 20.0  # seconds


def has_accelerator() -> bool:
    """Returns whether TensorFlow sees a GPU or a TPU."""
    return any(tf.config.list_physical_devices(kind) for kind in ("GPU", "TPU"))


def installed_gpus() -> tuple[str, ...]:
    """Returns the names of the machine's NVIDIA GPUs, such as ``("NVIDIA H100",)``; empty if there is none.

    The driver's program ``nvidia-smi`` tells them, or the driver's files if the program does not answer. GPUs that
    ``CUDA_VISIBLE_DEVICES`` hides all are not counted.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return ()
    return _told_by_program() or _told_by_driver() or (("an NVIDIA GPU",) if _DEVICE.exists() else ())


def _told_by_program() -> tuple[str, ...]:
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", told.stdout, re.MULTILINE))


def _told_by_driver() -> tuple[str, ...]:
    try:
        files = [(folder / "information").read_text() for folder in sorted(_DRIVER.iterdir())]
    except OSError:
        return ()
    return tuple(
        match[1].strip() for match in (re.search(r"^Model:(.*)$", text, re.MULTILINE) for text in files) if match
    )


def gpu_name(device: tf.config.PhysicalDevice) -> str:
    """Returns the model of a GPU that TensorFlow sees."""
    return str(tf.config.experimental.get_device_details(device).get("device_name", device.name))


def unseen_gpus() -> str | None:
    """Returns what to do about GPUs that TensorFlow does not see; None if it sees one, or the machine has none.

    The sentence differs with the cause: a TensorFlow that is built without CUDA, or one that lacks CUDA's libraries.
    """
    if tf.config.list_physical_devices("GPU") or not (names := installed_gpus()):
        return None
    version = tf.__version__
    command = f'pip install "tensorflow[and-cuda]=={version}"'
    found = f"This machine has {', '.join(names)}, which TensorFlow {version} does not see, so the CPU is used. "
    if sys.platform == "win32":
        return f"{found}TensorFlow uses GPUs on Windows only within WSL 2. Install it there: {command}"
    if tf.test.is_built_with_cuda():
        return f"{found}Libraries of CUDA are missing or do not match. Run: {command}"
    return f"{found}It is built without CUDA. Run: pip uninstall tensorflow-cpu tensorflow, and then: {command}"
