"""The provenance of a run: versions, devices and git commit, stored in its folder as ``provenance.json``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess

import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.small_files import parse_json, read_text
from effnetv2_keras.runs.run_folder import RunFolder, write_atomically

PROVENANCE_FILE = "provenance.json"
_IMAGES = "training images"


def describe_provenance(strategy: tf.distribute.Strategy) -> dict[str, str]:
    """Returns the versions, devices and git commit of this process as readable names and values; omits empty ones."""
    facts = {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "effnetv2-keras": _version("effnetv2-keras"),
        "git commit": _git_commit(),
        "system": platform.platform(),
        "CPUs": str(os.cpu_count()),
        "devices": ", ".join(_describe_device(device) for device in tf.config.list_physical_devices()),
        "strategy": type(strategy).__name__.replace("V1", ""),
        "replicas": str(strategy.num_replicas_in_sync),
    }
    return {name: value for name, value in facts.items() if value}


def note_provenance(folder: RunFolder, strategy: tf.distribute.Strategy, images: str = "") -> None:
    """Writes ``provenance.json``; resuming a run overwrites it, so it describes the last part of a run.

    Args:
        folder: folder of the run.
        strategy: strategy of the run.
        images: what training reads, see ``describe_reading``. A warning tells if a resumed run reads something else.
    """
    before = read_provenance(folder).get(_IMAGES, images)
    if before != images:
        logging.warning(
            "This run began with %s and goes on with %s, so it will not be exactly as without the interruption.",
            before, images,
        )  # fmt: skip
    facts = {**describe_provenance(strategy), **({_IMAGES: images} if images else {})}
    write_atomically(folder / PROVENANCE_FILE, json.dumps(facts, indent=1))


def read_provenance(folder: RunFolder) -> dict[str, str]:
    """Returns the content of ``provenance.json``; empty if there is no such file or, with a warning, it is damaged."""
    path = folder / PROVENANCE_FILE
    try:
        facts = parse_json(read_text(path)) if path.exists() else {}
    except ValueError as error:
        logging.warning("%s cannot be read and is left out: %s.", path, error)
        return {}
    return {str(name): str(value) for name, value in facts.items()}


def _version(package: str) -> str:
    """Returns the installed version of a package, or a note that it is used from its source tree."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from its source tree"


def _describe_device(device: tf.config.PhysicalDevice) -> str:
    """Returns the type of a device and, if known, its model."""
    name = ""
    if device.device_type == "GPU":
        name = tf.config.experimental.get_device_details(device).get("device_name", "")
    return f"{device.device_type} {name}".strip()


def _git_commit() -> str:
    """Returns the git commit of this source tree, with a mark if files have changed since; empty outside of git."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
        return commit.strip() + (" with changes" if changes else "")
    return ""
