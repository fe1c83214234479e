"""Reads HDF5 files of ``tf.keras.applications`` and of this package's models.

``model.save_weights("x.h5")`` and ``model.save("x.h5")`` name weights ``<layer>/<variable>:0``; in a nested model the
name of that model comes first. Keras 3 supports only ``model.save("x.h5")``, and writes no ``:0``. The layer names of
``tf.keras.applications`` are those of keras-team/keras, ``keras/src/applications/efficientnet.py`` and
``efficientnet_v2.py``.
"""

from __future__ import annotations

import io
import pathlib
import re
import zipfile
from collections.abc import Iterable, Sequence

import h5py
import numpy as np

from effnetv2_keras.models.keras_compat import as_in_keras_2
from effnetv2_keras.weights import positions
from effnetv2_keras.weights.layout import WeightsFile

KERAS_MEMBER = "model.weights.h5"
"""Member of a ``.keras`` archive with the weights. The other members, which can describe code to run, are not read."""

_LAYERS = {
    "stem_conv": "stem/conv",
    "stem_bn": "stem/norm",
    "top_conv": "head/conv",
    "top_bn": "head/norm",
    "predictions": "classifier",
}
_PARTS = {
    "expand_conv": "expand/conv",
    "expand_bn": "expand/norm",
    "dwconv": "depthwise/conv",
    "dwconv2": "depthwise/conv",
    "bn": "depthwise/norm",
    "se_reduce": "squeeze_excite/reduce",
    "se_expand": "squeeze_excite/expand",
    "project_conv": "project/conv",
    "project_bn": "project/norm",
}
_BLOCK = re.compile(rf"block(\d+)([a-z])_({'|'.join(_PARTS)})")
_OURS = re.compile(
    r"(?:.*[/_])?(stem|head|block_\d+|classifier)/"
    r"((?:(?:expand|depthwise|project)/)?(?:conv|norm)/\w+|squeeze_excite/(?:reduce|expand)/\w+|kernel|bias)(?::0)?"
)
_OPTIMIZER = ("optimizer_weights/", "optimizer/")


def read_hdf5(path: pathlib.Path, names: Sequence[str]) -> WeightsFile:
    """Reads the weights in an HDF5 file; for ``names`` see ``positions.hdf5_table``."""
    with h5py.File(path, "r") as file:
        return _read(file, names)


def read_keras_archive(path: pathlib.Path, names: Sequence[str]) -> WeightsFile:
    """Reads the weights in a ``.keras`` archive; for ``names`` see ``positions.hdf5_table``."""
    with zipfile.ZipFile(path) as archive:
        member = io.BytesIO(archive.read(KERAS_MEMBER))  # in memory: HDF5 seeks a lot, which is slow in a zip archive
    with h5py.File(member, "r") as file:
        return _read(file, names)


def _read(file: h5py.File, names: Sequence[str]) -> WeightsFile:
    paths: list[str] = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    named = [path for path in paths if not path.startswith(_OPTIMIZER)]
    tables = {
        "HDF5 of tf.keras.applications": _applications_table(named),
        "HDF5 of this package": _our_table(named),
        "HDF5 of this package, by position": positions.hdf5_table(named, names),
        "HDF5 of tf.keras.applications, by position": positions.applications_table(named, names),
    }
    kind, table = max(tables.items(), key=lambda item: len(item[1]))
    weights = {name: np.asarray(file[path]) for path, name in table.items()}
    return WeightsFile(kind, weights, tuple(path for path in paths if path not in table))


def _applications_table(paths: Iterable[str]) -> dict[str, str]:
    """Returns the canonical name for each path ``.../<layer>/<variable>:0`` of ``tf.keras.applications``.

    Paths that Keras 3 writes have no ``:0``.
    """
    split = {path: path.removesuffix(":0").split("/")[-2:] for path in paths if "/" in path}
    blocks = {match[0]: match for layer, _ in split.values() if (match := _BLOCK.fullmatch(layer))}
    order = sorted({(int(match[1]), match[2]) for match in blocks.values()})
    layers = {
        layer: f"block_{order.index((int(match[1]), match[2]))}/{_PARTS[match[3]]}" for layer, match in blocks.items()
    }
    layers.update(_LAYERS)
    named = {path: f"{layers[layer]}/{variable}" for path, (layer, variable) in split.items() if layer in layers}
    return {path: as_in_keras_2(name) for path, name in named.items()}


def _our_table(paths: Iterable[str]) -> dict[str, str]:
    """Returns the canonical name for each path of a ``build_model`` model: it is the path after the model's name."""
    matches = ((path, _OURS.fullmatch(path)) for path in paths)
    return {path: as_in_keras_2(f"{match[1]}/{match[2]}") for path, match in matches if match}
