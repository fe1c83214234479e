"""Recognizes the format of a file of weights by its content and reads it with the reader of that format."""

from __future__ import annotations

import lzma
import pathlib
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping

import tensorflow as tf

from effnetv2_keras.errors import PackageMissing
from effnetv2_keras.weights import hdf5, registry, sizes, tf_checkpoint, timm
from effnetv2_keras.weights.layout import Shape, WeightsFile
from effnetv2_keras.weights.report import WeightsError

FORMATS = (
    "HDF5 (.h5) or a Keras archive (.keras) of tf.keras.applications or of this package, a TensorFlow checkpoint (its "
    "prefix, its folder or a .tgz of it), the folder of a run, or timm's .safetensors or .pth"
)
"""The formats that can be read, for error messages."""

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    SystemError,  # h5py, for names that are not UTF-8
    LookupError,
    RuntimeError,
    AttributeError,
    zlib.error,
    lzma.LZMAError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    tf.errors.OpError,
)
"""The errors that the readers' libraries raise for damaged files."""


def read(path: pathlib.Path, *, shapes: Mapping[str, Shape], prefer_ema: bool) -> WeightsFile:
    """Returns the weights in a file or folder of any known format.

    Args:
        path: the file or folder, or the prefix of a checkpoint.
        shapes: shapes of the weights of the model that they are for, by canonical name, in the model's order. Weights
            of other shapes are not read, so that a file cannot take more memory than the model's own weights.
        prefer_ema: whether to read the moving averages of the weights if the file has them.

    Raises:
        WeightsError: if there is no such file, its format is unknown, it cannot be read, it unpacks to much more than
            the weights of the model, it refers to other files, or it names a network that computes something else.
    """
    try:
        file = _read(path, shapes, prefer_ema)
    except (WeightsError, PackageMissing):
        raise
    except _UNREADABLE as error:
        raise WeightsError(f"{path} cannot be read; it may be damaged or incomplete: {error}") from error
    if not file.weights:
        raise WeightsError(f"{path} contains no weights with known names. Supported formats are {FORMATS}.")
    return file


def _read(path: pathlib.Path, shapes: Mapping[str, Shape], prefer_ema: bool) -> WeightsFile:
    if not path.is_file():
        return _read_checkpoint(path, shapes, prefer_ema)
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(path, shapes, prefer_ema)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return hdf5.read_hdf5(path, shapes)
    if start.startswith(b"\x1f\x8b"):
        return tf_checkpoint.read_archive(path, shapes, prefer_ema=prefer_ema)
    if start[8:9] == b"{":  # after the length of the header
        return timm.read_safetensors(path, shapes)
    if start.startswith(b"\x80") and path.suffix in (".pth", ".pt", ".bin"):  # PyTorch's format before version 1.6
        return timm.read_pickle(path, shapes, prefer_ema=prefer_ema)
    raise _unknown(path)


def _read_checkpoint(path: pathlib.Path, shapes: Mapping[str, Shape], prefer_ema: bool) -> WeightsFile:
    if prefix := tf_checkpoint.checkpoint_prefix(path):
        return tf_checkpoint.read_checkpoint(prefix, shapes, prefer_ema=prefer_ema)
    if path.is_dir():
        raise WeightsError(
            f"The folder {path} contains no checkpoint, or several without a file 'checkpoint' that names the latest. "
            "Give the prefix of the checkpoint."
        )
    raise WeightsError(
        f"There is no file, folder or checkpoint {path}. The names of published weights are {registry.FORMS}."
    )


def _read_zip(path: pathlib.Path, shapes: Mapping[str, Shape], prefer_ema: bool) -> WeightsFile:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if hdf5.KERAS_MEMBER in members:
        return hdf5.read_keras_archive(path, shapes)
    if any(member.endswith("data.pkl") for member in members):
        sizes.check_members(path, shapes)
        return timm.read_pickle(path, shapes, prefer_ema=prefer_ema)
    raise _unknown(path)


_OTHERS = {
    b"version https://git-lfs": "It is a pointer of Git LFS; run 'git lfs pull' in its repository to get the file. ",
    b"<": "It is a page of a web site or XML; download the file itself. ",
}
"""What files begin with that are in the place of weights, and what to do."""


def _unknown(path: pathlib.Path) -> WeightsError:
    with path.open("rb") as file:
        start = file.read(100).lstrip()
    what = "It is empty. " if not start else next((text for key, text in _OTHERS.items() if start.startswith(key)), "")
    return WeightsError(f"The format of {path} is unknown. {what}Supported formats are {FORMATS}.")
