"""Small files that declare or unpack to much: they are refused quickly and take little memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import sys
import tarfile
import time
import tracemalloc
import types
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from effnetv2_keras.weights import WeightsError, load_weights
from tests.weights.filled import assert_same_weights, tiny, write_h5

MANY = 1 << 30


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "model.h5"
    write_h5(model, path)
    return path


@contextlib.contextmanager
def little():
    """Asserts that the block takes little time and memory."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 5


def refused(model, path, message):
    with little(), pytest.raises(WeightsError, match=message):
        load_weights(model, path)


@contextlib.contextmanager
def changed(written, tmp_path):
    """A copy of an HDF5 file of the tiny network, its path of the stem's kernel, and the file itself."""
    path = tmp_path / "changed.h5"
    path.write_bytes(written.read_bytes())
    with h5py.File(path, "r+") as file:
        places = []
        file.visit(lambda place: places.append(place) if re.search(r"stem/conv/(_?)kernel", place) else None)
        yield path, places[-1], file


@pytest.mark.parametrize("chunks", [(1, 1, 3, 8), None])
def test_an_array_of_another_shape_is_not_read(chunks, model, written, tmp_path):
    with changed(written, tmp_path) as (path, place, file):
        del file[place]
        file.create_dataset(place, (3, 3, 3, MANY), "f4", chunks=chunks, compression=chunks and "gzip")
    assert path.stat().st_size < 2e6
    refused(model, path, rf"of another shape: stem/conv/kernel \(3, 3, 3, {MANY}\) in the file")
    gray = tiny(input_shape=(None, None, 1), include_preprocessing=False)
    refused(gray, path, rf"of another shape: stem/conv/kernel \(3, 3, 3, {MANY}\) in the file")


def test_a_chunk_larger_than_its_array_is_refused(model, written, tmp_path):
    with changed(written, tmp_path) as (path, place, file):
        value = file[place][()]
        del file[place]
        file.create_dataset(place, data=value, chunks=(3, 3, 3, 1 << 16), maxshape=(3, 3, 3, None), compression="gzip")
    refused(model, path, r"has chunks of 7,077,888 bytes, with the filters \['gzip'\]\. Allowed are")


def test_a_chunk_that_unpacks_to_more_than_its_size_is_refused(model, written, tmp_path):
    with changed(written, tmp_path) as (path, place, file):
        value = file[place][()]
        del file[place]
        data = file.create_dataset(place, data=value, chunks=value.shape, compression="gzip")
        data.id.write_direct_chunk((0,) * value.ndim, zlib.compress(bytes(200_000_000)))
    refused(model, path, r"a chunk of .*stem/conv/\w+(:0)? unpacks to more than its [\d,]+ bytes")


@pytest.mark.parametrize("options", [{}, {"fletcher32": True}, {"shuffle": True}])
def test_packed_weights_are_read(options, model, written, tmp_path):
    saved = tiny(seed=5)
    write_h5(saved, tmp_path / "plain.h5")
    with changed(tmp_path / "plain.h5", tmp_path) as (path, place, file):
        value = file[place][()]
        del file[place]
        file.create_dataset(place, data=value, chunks=(1, *value.shape[1:]), compression="gzip", **options)
    loaded = tiny()
    load_weights(loaded, path)
    assert_same_weights(loaded, saved)


def outside(file, place, other):
    file.create_dataset(place, (3, 3, 3, 8), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(file, place, other):
    layout = h5py.VirtualLayout((3, 3, 3, 8), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (3, 3, 3, 8))
    file.create_virtual_dataset(place, layout)


def linked(file, place, other):
    file[place] = h5py.ExternalLink(str(other), "x")


@pytest.mark.parametrize("refer", [outside, virtual, linked])
def test_the_bytes_of_other_files_do_not_become_weights(refer, model, written, tmp_path):
    other = tmp_path / "other"
    if refer is outside:
        other.write_bytes(bytes(9999))
    else:
        with h5py.File(other, "w") as file:
            file["x"] = np.ones((3, 3, 3, 8), "f4")
    with changed(written, tmp_path) as (path, place, file):
        del file[place]
        refer(file, place, other)
    refused(model, path, r"stem/conv/\w+(:0)? is stored in another file or composed from one")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(path, "model.weights.h5")
    refused(model, tmp_path / "model.keras", "is stored in another file or composed from one")


@pytest.mark.parametrize("honest", [True, False])
def test_an_archive_that_unpacks_to_much_is_refused(honest, model, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(150_000_000))
    if not honest:  # the directory of the archive says that the member has 1000 bytes
        content = path.read_bytes()
        size = (150_000_000).to_bytes(4, "little")
        path.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    refused(model, path, "unpacks to more than" if honest else "cannot be read")


def test_an_archive_with_another_compression_is_refused(model, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("model.weights.h5", bytes(1000))
    refused(model, path, r"model\.weights\.h5 is not stored or deflated")


def test_a_zip_archive_of_something_else_is_named_as_such(model, tmp_path):
    np.savez(tmp_path / "arrays.npz", kernel=np.zeros(3))
    refused(model, tmp_path / "arrays.npz", r"The format of .*arrays\.npz is unknown")


def test_a_pytorch_archive_that_unpacks_to_much_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=None))
    with zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/data/0", bytes(150_000_000))
    refused(model, tmp_path / "model.pth", "unpacks to more than")


def sparse_header(size):
    """A member of some bytes that unpacks to ``size`` zeros, as GNU tar writes it."""
    info = tarfile.TarInfo("model.data-00000-of-00001")
    info.size, info.type = 0, tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % size
    header[386:410] = b"%011o\0" % size + b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", ["checkpoint", "something else", "sparse"])
def test_a_tgz_that_unpacks_to_much_is_refused_and_writes_little(kind, model, tmp_path, monkeypatch):
    path, size = tmp_path / "model.tgz", 150_000_000
    if kind == "sparse":
        path.write_bytes(gzip.compress(sparse_header(size) + bytes(1024)))
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo({"checkpoint": "model.data-00000-of-00001"}.get(kind, "README"))
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    written = []
    copy = "effnetv2_keras.weights.tf_checkpoint.shutil.copyfileobj"
    monkeypatch.setattr(copy, lambda source, target: written.append(target.write(source.read())))
    refused(model, path, "unpacks to more than")
    assert sum(written) < 10_000_000


def test_a_checkpoint_of_another_shape_is_not_read(model, tmp_path, monkeypatch):
    reader = types.SimpleNamespace(
        get_variable_to_shape_map=lambda: {"tiny/stem/conv2d/kernel": [3, 3, 3, MANY]}, get_tensor=None
    )
    tf.train.Checkpoint(step=tf.Variable(0)).write(str(tmp_path / "ckpt"))
    monkeypatch.setattr(tf.train, "load_checkpoint", lambda prefix: reader)
    refused(model, tmp_path / "ckpt", "does not fit the model")


def test_safetensors_of_another_shape_are_not_read(model, tmp_path, monkeypatch):
    save_file({"conv_stem.weight": np.zeros((9, 3, 3, 3), "f4")}, tmp_path / "tf_efficientnet_b0.safetensors")
    monkeypatch.setattr("effnetv2_keras.weights.timm._in_tensorflow", lambda name, value: given.append(value) or value)
    given = []
    refused(model, tmp_path / "tf_efficientnet_b0.safetensors", "does not fit the model")
    assert [value.strides for value in given] == [(0, 0, 0, 0)]  # the stand-in alone


def test_weights_of_a_network_of_kerashub_are_named_as_such(model, tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 8), "f4")
        for block in ("cba_block", "fused_mb_conv_block_1", "mb_conv_block"):
            file[f"layers/{block}/conv1/vars/0"] = np.zeros(3, "f4")
    refused(model, tmp_path / "model.weights.h5", "is a file of KerasHub or KerasCV, whose networks pad images")


def test_groups_nested_without_end_are_refused(model, tmp_path):
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(300):
            group = group.create_group("g")
    refused(model, path, "the depth of the groups is 51; it must be at most 50")
