"""Packages that an installation may lack: TensorFlow itself, and the extras, each for one feature (no TensorFlow)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from effnetv2_keras.errors import PackageMissing

OLDEST_TENSORFLOW = (2, 15)
"""The oldest version of TensorFlow that is supported."""

EXTRAS = {
    "tensorflow": "tf",
    "tensorflow_datasets": "tfds",
    "optuna": "search",
    "huggingface_hub": "hub",
    "safetensors": "hub",
    "mlxtend": "demo",
    "tf2onnx": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pillow_heif": "heif",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
"""The extra of this package that installs each module."""


def install_command(extra: str) -> str:
    """Returns the command that installs an extra of this package."""
    try:
        importlib.metadata.distribution("effnetv2-keras")
    except importlib.metadata.PackageNotFoundError:
        return f'pip install -e ".[{extra}]"'
    return f'pip install "effnetv2-keras[{extra}]"'


def need(module: str, feature: str) -> ModuleType:
    """Imports and returns an optional module.

    Args:
        module: a key of ``EXTRAS``.
        feature: what needs it, as the subject of the error message.

    Raises:
        PackageMissing: if the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, feature, error) from error


@contextlib.contextmanager
def explained(feature: str) -> Iterator[None]:
    """Explains inside a ``with`` block that a package is missing, or that TensorFlow is too old.

    Args:
        feature: what needs the package, as the subject of the error message.

    Raises:
        PackageMissing: if the block imports a missing module of ``EXTRAS``, or imports a TensorFlow before
            ``OLDEST_TENSORFLOW``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            _check_tensorflow(error)
            raise
        raise _missing(module, feature, error) from error
    except (ImportError, AttributeError) as error:  # names that an older TensorFlow lacks
        _check_tensorflow(error)
        raise
    _check_tensorflow(None)


def _missing(module: str, feature: str, error: ImportError) -> PackageMissing:
    absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == module
    reason = "which is not installed" if absent else f"which cannot be imported ({error})"
    return PackageMissing(f"{feature} needs the package {module}, {reason}. Run: {install_command(EXTRAS[module])}")


def _check_tensorflow(cause: Exception | None) -> None:
    """Raises ``PackageMissing`` if a TensorFlow is imported that is too old."""
    version = getattr(sys.modules.get("tensorflow"), "__version__", None)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])
    if version and numbers < OLDEST_TENSORFLOW:
        oldest = ".".join(map(str, OLDEST_TENSORFLOW))
        raise PackageMissing(
            f"TensorFlow {version} is installed, but effnetv2_keras needs {oldest} or later. "
            f'Run: pip install --upgrade "tensorflow>={oldest}"'
        ) from cause
