from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.models import build_model
from effnetv2_keras.models.checkpointed import checkpointed
from effnetv2_keras.models.keras_compat import IS_KERAS_3
from effnetv2_keras.weights import WeightsError, load_weights
from tests.made_runs import make_run
from tests.models.filling import fill_at_random
from tests.tiny import TINY
from tests.weights.filled import assert_same_weights, named_weights, tiny

EMA = "ExponentialMovingAverage"
_PLAIN = {"expand": 0, "project": 1}


def reference_name(spec, name, *, head="head"):
    """The reference code's name of a weight, written from its rule: Keras counts a block's layers by class."""
    role, *parts = name.split("/")
    if role == "classifier":
        return f"{spec.name}/{head}/dense/{parts[0]}"
    if role in ("stem", "head"):
        layer = "conv2d" if parts[0] == "conv" else "tpu_batch_normalization"
        return f"{spec.name}/{role}/{layer}/{parts[1]}"
    index = int(role.removeprefix("block_"))
    block = specs.expand(spec).blocks[index]
    order = ["expand"] * (block.expand_ratio != 1) + ["depthwise"] * (block.kind == "mbconv") + ["project"]
    part, sort, kind = parts
    if part == "squeeze_excite":
        layer = "se/" + numbered("conv2d", ["reduce", "expand"].index(sort))
    elif sort == "norm":
        layer = numbered("tpu_batch_normalization", order.index(part))
    elif part == "depthwise":
        layer = "depthwise_conv2d"
    else:
        layer = numbered("conv2d", [other for other in order if other != "depthwise"].index(part))
    return f"{spec.name}/blocks_{index}/{layer}/{kind}"


def numbered(layer, number):
    return f"{layer}_{number}" if number else layer


def write_reference(prefix, spec, raw, averaged=None, *, head="head"):
    """Writes a name-based checkpoint as training leaves it: weights, averages, RMSProp's slots, global_step."""
    tensors = {"global_step": np.int64(7)}
    for name, value in raw.items():
        original = reference_name(spec, name, head=head)
        tensors[original] = value
        if averaged:
            tensors[f"{original}/{EMA}"] = averaged[name]
        if "moving_" not in name:
            tensors[f"{original}/RMSProp"] = tensors[f"{original}/RMSProp_1"] = np.full_like(value, 9.0)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return prefix


@pytest.fixture(scope="module")
def averaged():
    return tiny(seed=5)


@pytest.fixture(scope="module")
def raw():
    return tiny(seed=6)


@pytest.fixture(scope="module", params=["head", "head_1"])
def checkpoint(request, tmp_path_factory, raw, averaged):
    prefix = tmp_path_factory.mktemp("reference") / "model.ckpt-7"
    return write_reference(prefix, TINY, named_weights(raw), named_weights(averaged), head=request.param)


def test_names_are_those_of_the_reference_code():
    """Spelled out once, as they stand in a checkpoint of its B0, and of V1's, whose first block has no expansion."""
    spec = variants.MODELS["efficientnetv2-b0"]
    for name, expected in {
        "stem/norm/gamma": "stem/tpu_batch_normalization/gamma",
        "block_0/project/conv/kernel": "blocks_0/conv2d/kernel",
        "block_1/project/conv/kernel": "blocks_1/conv2d_1/kernel",
        "block_5/depthwise/conv/depthwise_kernel": "blocks_5/depthwise_conv2d/depthwise_kernel",
        "block_5/depthwise/norm/beta": "blocks_5/tpu_batch_normalization_1/beta",
        "block_5/squeeze_excite/expand/bias": "blocks_5/se/conv2d_1/bias",
        "block_5/project/conv/kernel": "blocks_5/conv2d_1/kernel",
        "block_5/project/norm/moving_mean": "blocks_5/tpu_batch_normalization_2/moving_mean",
        "classifier/bias": "head/dense/bias",
    }.items():
        assert reference_name(spec, name) == f"efficientnetv2-b0/{expected}"
    assert reference_name(variants.MODELS["efficientnet-b0"], "block_0/project/conv/kernel").endswith(
        "blocks_0/conv2d/kernel"
    )


@pytest.mark.parametrize("name", ["efficientnetv2-b0", "efficientnet-b0"])
def test_checkpoints_of_named_variants(name, tmp_path):
    model = build_model(name)
    fill_at_random(model, seed=1)
    saved = named_weights(model)
    prefix = write_reference(tmp_path / "model.ckpt", variants.MODELS[name], saved)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    report = load_weights(model, prefix)
    assert len(report.loaded) == len(model.weights)
    for weight, value in named_weights(model).items():
        np.testing.assert_array_equal(value, saved[weight], err_msg=weight)


def test_averages_are_preferred(checkpoint, raw, averaged):
    model = tiny(seed=1)
    report = load_weights(model, checkpoint)
    assert_same_weights(model, averaged)
    assert {"global_step", "tiny/stem/conv2d/kernel", "tiny/stem/conv2d/kernel/RMSProp_1"} <= set(report.skipped)
    assert "checkpoint of the reference code" in report.source
    report = load_weights(model, checkpoint, prefer_ema=False)
    assert_same_weights(model, raw)
    assert f"tiny/stem/conv2d/kernel/{EMA}" in report.skipped


def test_a_folder_means_its_latest_checkpoint(tmp_path, raw, averaged):
    write_reference(tmp_path / "model.ckpt-1", TINY, named_weights(raw))
    model = tiny()
    load_weights(model, tmp_path)
    assert_same_weights(model, raw)
    write_reference(tmp_path / "model.ckpt-2", TINY, named_weights(averaged))
    with pytest.raises(WeightsError, match="contains no checkpoint, or several"):
        load_weights(model, tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    load_weights(model, tmp_path)
    assert_same_weights(model, averaged)


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_the_archive_that_is_published(tmp_path, raw):
    write_reference(tmp_path / "model", TINY, named_weights(raw))
    with tarfile.open(tmp_path / "tiny.tgz", "w:gz") as archive:
        for path in tmp_path.glob("model.*"):
            archive.add(path, f"tiny/{path.name}")
        add(archive, "tiny/checkpoint", b'model_checkpoint_path: "/somewhere/else/model"\n')
        add(archive, "tiny/model.meta", b"the graph")
    model = tiny()
    load_weights(model, tmp_path / "tiny.tgz")
    assert_same_weights(model, raw)


def test_an_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "temporary"
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with tarfile.open(tmp_path / "evil.tgz", "w:gz") as archive:
        for name in ("../../evil.index", f"{tmp_path}/absolute.index", "../../evil.txt"):
            add(archive, name, b"evil")
        link = tarfile.TarInfo("link.index")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(WeightsError, match=r"evil\.tgz"):
        load_weights(tiny(), tmp_path / "evil.tgz")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evil.tgz"]


def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path):
    with tarfile.open(tmp_path / "two.tgz", "w:gz") as archive:
        add(archive, "a/model.index", b"1")
        add(archive, "b/model.index", b"2")
    with pytest.raises(WeightsError, match=r"contains several files model\.index"):
        load_weights(tiny(), tmp_path / "two.tgz")


@pytest.mark.parametrize("content", [b"\x1f\x8b no gzip", b"\x1f\x8b"])
def test_a_damaged_archive_is_refused(content, tmp_path):
    (tmp_path / "damaged.tgz").write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.tgz cannot be read"):
        load_weights(tiny(), tmp_path / "damaged.tgz")


def test_a_damaged_checkpoint_is_refused(tmp_path, raw):
    write_reference(tmp_path / "model", TINY, named_weights(raw))
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="model cannot be read; it may be damaged or incomplete"):
        load_weights(tiny(), tmp_path / "model")


def test_a_run_gives_its_best_weights_averaged_or_not(tmp_path):
    run = make_run(tmp_path / "run")
    for path, place, prefer_ema in (
        (run, "best", True),
        (run, "best", False),
        (run / "checkpoints", "checkpoints", True),
        (tf.train.latest_checkpoint(str(run / "checkpoints")), "checkpoints", False),
    ):
        expected, model = tiny(num_classes=6), tiny(num_classes=6)
        role = "ema_model" if prefer_ema else "model"
        saved = tf.train.latest_checkpoint(str(run / place))
        tf.train.Checkpoint(**{role: checkpointed(expected)}).restore(
            saved
        ).assert_existing_objects_matched().expect_partial()
        report = load_weights(model, path, prefer_ema=prefer_ema)
        assert_same_weights(model, expected)
        assert any("optimizer" in name for name in report.skipped)


def test_a_checkpoint_of_the_model_alone(tmp_path, raw):
    model = tiny()
    load_weights(model, tf.train.Checkpoint(net=raw).save(str(tmp_path / "net")))
    assert_same_weights(model, raw)
    if IS_KERAS_3:
        return
    raw.save_weights(tmp_path / "weights")
    model = tiny()
    load_weights(model, tmp_path / "weights")
    assert_same_weights(model, raw)
