"""Reads HDF5 files of ``tf.keras.applications`` and of this package's models.

``model.save_weights("x.h5")`` and ``model.save("x.h5")`` name weights ``<layer>/<variable>:0``; in a nested model the
name of that model comes first. Keras 3 supports only ``model.save("x.h5")``, and writes no ``:0``. The layer names of
``tf.keras.applications`` are in ``architecture/keras_names.py``.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from effnetv2_keras.architecture import keras_names
from effnetv2_keras.basics import limits
from effnetv2_keras.models.keras_compat import as_in_keras_2
from effnetv2_keras.weights import facts, positions, sizes
from effnetv2_keras.weights.layout import Array, Shape, WeightsFile
from effnetv2_keras.weights.report import WeightsError

KERAS_MEMBER = "model.weights.h5"
"""Member of a ``.keras`` archive with the weights."""
_KERAS_CONFIG = "config.json"
"""Member of a ``.keras`` archive that describes the layers. It can name code to run, so the layers are not built."""

_OURS = re.compile(
    r"(?:.*[/_])?(stem|head|block_\d+|classifier)/"
    r"((?:(?:expand|depthwise|project)/)?(?:conv|norm)/\w+|squeeze_excite/(?:reduce|expand)/\w+|kernel|bias)(?::0)?"
)
_KERAS_HUB = re.compile(r"(?:^|/)(?:(?:fused_)?mb_conv_block|cba_block)(?:_\d+)?/")
"""Layers of KerasHub and KerasCV (keras-team/keras-hub, ``keras_hub/src/models/efficientnet``)."""
_OPTIMIZER = ("optimizer_weights/", "optimizer/")


def read_hdf5(path: pathlib.Path, shapes: Mapping[str, Shape]) -> WeightsFile:
    """Reads the weights in an HDF5 file; for ``shapes`` see ``formats.read``."""
    with h5py.File(path, "r") as file:
        return _read(file, path, shapes)


def read_keras_archive(path: pathlib.Path, shapes: Mapping[str, Shape]) -> WeightsFile:
    """Reads the weights in a ``.keras`` archive; for ``shapes`` see ``formats.read``."""
    # In memory, because HDF5 seeks a lot, which is slow in a zip archive.
    with h5py.File(io.BytesIO(sizes.read_member(path, KERAS_MEMBER, shapes)), "r") as file:
        content = _read(file, path, shapes)
    return dataclasses.replace(content, facts=facts.of_archive(sizes.read_member(path, _KERAS_CONFIG, shapes)))


def _read(file: h5py.File, path: pathlib.Path, shapes: Mapping[str, Shape]) -> WeightsFile:
    paths = _datasets(file, path)
    if any(map(_KERAS_HUB.search, paths)):
        raise WeightsError(
            f"{path} is a file of KerasHub or KerasCV, whose networks pad images differently from these. Use the "
            'weights of tf.keras.applications instead, such as "imagenet".'
        )
    names, named = list(shapes), [path for path in paths if not path.startswith(_OPTIMIZER)]
    tables = {
        "HDF5 of tf.keras.applications": _applications_table(named),
        "HDF5 of this package": _our_table(named),
        "HDF5 of this package, by position": positions.hdf5_table(named, names),
        "HDF5 of layers of Keras, by position": positions.applications_table(named, names),
    }
    kind, table = max(tables.items(), key=lambda item: len(item[1]))
    weights = {}
    for place, name in table.items():
        shape = file[place].shape or ()  # None for an empty dataset
        needed = sizes.is_needed(name, shape, shapes)
        weights[name] = _content(file[place], path) if needed else sizes.unread(shape)
    return WeightsFile(kind, weights, tuple(place for place in paths if place not in table))


def _datasets(file: h5py.File, path: pathlib.Path) -> list[str]:
    """Returns the paths of all datasets.

    Raises:
        WeightsError: if a link or a dataset refers to another file, whose bytes would become weights.
    """
    paths: list[str] = []

    def visit(place: str, item: Any) -> str | None:  # HDF5 stops at the first place that is returned
        if isinstance(item, h5py.Dataset):
            paths.append(place)
            return place if item.external or item.is_virtual else None
        return None

    def visit_link(place: str, link: Any) -> str | None:
        return place if isinstance(link, h5py.ExternalLink) or place.count("/") > limits.DEEPEST_GROUP else None

    if place := file.visititems_links(visit_link) or file.visititems(visit):
        limits.check(f"{path}: the depth of the groups", place.count("/"), limits.DEEPEST_GROUP)
        raise _not_alone(path, place)
    return paths


def _not_alone(path: pathlib.Path, place: str) -> WeightsError:
    return WeightsError(
        f"{path}: {place} is stored in another file or composed from one, which Keras never writes. It was not read, "
        "because any file of this machine could become weights. Use a file that contains all its weights."
    )


def _content(dataset: h5py.Dataset, path: pathlib.Path) -> Array:
    """Returns an array whose shape is known to be right.

    Raises:
        WeightsError: if a chunk of it unpacks to more than its own size, or with something other than gzip.
    """
    is_bfloat16 = dataset.dtype == np.dtype("V2")  # Keras 3 writes it so
    if dataset.dtype.kind not in "fiu" and not is_bfloat16:
        raise WeightsError(f"{path}: {dataset.name} has the dtype {dataset.dtype}, but weights are numbers.")
    if dataset.chunks is not None:
        _check_chunks(dataset, path)
    content = np.asarray(dataset)
    return content.view(tf.bfloat16.as_numpy_dtype).astype(np.float32) if is_bfloat16 else content


def _check_chunks(dataset: h5py.Dataset, path: pathlib.Path) -> None:
    """Raises WeightsError if a chunk unpacks to more than its own size, or with something other than gzip."""
    size = dataset.dtype.itemsize * math.prod(dataset.chunks)
    filters = set(dataset._filters)  # h5py's public properties do not list all filters
    most = limits.largest_chunk(dataset.nbytes)
    if size > most or not filters <= {"gzip", "shuffle", "fletcher32"}:
        raise WeightsError(
            f"{path}: {dataset.name} has chunks of {size:,} bytes, with the filters {sorted(filters)}. "
            f"Allowed are chunks of at most {most:,} bytes, packed with gzip. Save the weights again with Keras."
        )
    for number in range(dataset.id.get_num_chunks() if "gzip" in filters else 0):
        _, packed = dataset.id.read_direct_chunk(dataset.id.get_chunk_info(number).chunk_offset)
        if len(zlib.decompressobj().decompress(packed, size + 5)) > size + 4:  # fletcher32 adds 4 bytes
            raise WeightsError(f"{path}: a chunk of {dataset.name} unpacks to more than its {size:,} bytes.")


def _applications_table(paths: Iterable[str]) -> dict[str, str]:
    """Returns the canonical name for each path ``.../<layer>/<variable>:0`` of ``tf.keras.applications``.

    Paths that Keras 3 writes have no ``:0``.
    """
    split = {path: path.removesuffix(":0").split("/")[-2:] for path in paths if "/" in path}
    layers = keras_names.places(dict.fromkeys(layer for layer, _ in split.values()))
    statistics = {layer for layer, _ in split.values() if layers.get(layer) == "preprocessing"}
    if len(statistics) > 1:  # which one belongs to the network is not known
        layers = {layer: place for layer, place in layers.items() if layer not in statistics}
    named = {path: f"{layers[layer]}/{variable}" for path, (layer, variable) in split.items() if layer in layers}
    return {path: as_in_keras_2(name) for path, name in named.items()}


def _our_table(paths: Iterable[str]) -> dict[str, str]:
    """Returns the canonical name for each path of a ``build_model`` model: it is the path after the model's name."""
    matches = ((path, _OURS.fullmatch(path)) for path in paths)
    return {path: as_in_keras_2(f"{match[1]}/{match[2]}") for path, match in matches if match}
