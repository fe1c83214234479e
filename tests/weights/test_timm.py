"""Against timm itself where there is one; everywhere else against its names and layouts, written down a second time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from effnetv2_keras.architecture import specs, variants
from effnetv2_keras.models import build_model
from effnetv2_keras.weights import WeightsError, load_weights
from tests.models.filling import fill_at_random
from tests.tiny import TINY
from tests.weights.filled import assert_close, assert_same_weights, named_weights, pixels, tiny

TIMM_PYTHON = os.environ.get("TIMM_PYTHON")
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def timm_state(model, spec):
    """A model's weights as timm names and lays them out."""
    state, places, expanded, first = {}, [], specs.expand(spec), 0
    for stage, end in enumerate(expanded.stage_ends):
        places += [f"blocks.{stage}.{index - first}" for index in range(first, end + 1)]
        first = end + 1
    for name, value in named_weights(model).items():
        role, *parts = name.split("/")
        kind = parts[-1]
        if role.startswith("block_"):
            index = int(role.removeprefix("block_"))
            layer = f"{places[index]}.{block_layer(expanded.blocks[index], *parts[:2])}"
        else:
            layer = {
                "stem": {"conv": "conv_stem", "norm": "bn1"}, "head": {"conv": "conv_head", "norm": "bn2"},
                "classifier": {"kernel": "classifier", "bias": "classifier"},
            }[role][parts[0]]  # fmt: skip
        if kind in NORM:
            state[f"{layer}.{NORM[kind]}"] = value
            state[f"{layer}.num_batches_tracked"] = np.int64(3)
        elif kind == "depthwise_kernel":
            state[f"{layer}.weight"] = np.moveaxis(value[..., 0], 2, 0)[:, None]
        elif kind == "kernel":
            state[f"{layer}.weight"] = np.einsum("hwio->oihw", value) if value.ndim == 4 else np.einsum("io->oi", value)
        else:
            state[f"{layer}.bias"] = value
    return {name: np.array(value, order="C") for name, value in state.items()}


def block_layer(block, part, sort):
    if part == "squeeze_excite":
        return f"se.conv_{sort}"
    names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    if block.kind == "fused_mbconv":
        names = {"expand": "conv_exp", "project": "conv_pwl"} if block.expand_ratio != 1 else {"project": "conv"}
    elif block.expand_ratio == 1:
        names = {"depthwise": "conv_dw", "project": "conv_pw"}
    return names[part] if sort == "conv" else f"bn{list(names).index(part) + 1}"


@pytest.mark.parametrize("spec", [TINY, variants.MODELS["efficientnetv2-b0"], variants.MODELS["efficientnet-b0"]])
def test_safetensors_in_timms_names_and_layouts(spec, tmp_path):
    model = build_model(spec)
    fill_at_random(model, seed=3)
    save_file(timm_state(model, spec), tmp_path / "model.safetensors")
    saved = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in saved])
    report = load_weights(model, tmp_path / "model.safetensors")
    for weight, value in zip(model.get_weights(), saved):
        np.testing.assert_array_equal(weight, value)
    assert all(name.endswith("num_batches_tracked") for name in report.skipped)


@pytest.fixture(scope="module")
def state():
    return timm_state(tiny(seed=1), TINY)


@pytest.mark.parametrize(
    ("place", "config", "message"),
    [
        ("efficientnet_b0_ra-3dd342df.safetensors", None, "is of timm's efficientnet_b0_ra, as its file name says"),
        ("gc_efficientnetv2_rw_t_agc-1.safetensors", None, "is of timm's gc_efficientnetv2_rw_t_agc, as its file name"),
        ("efficientnet_b0.ra_in1k/model.safetensors", None, r"as the folder efficientnet_b0\.ra_in1k says"),
        ("models--timm--efficientnetv2_rw_s.ra2_in1k/snapshots/0a1/model.safetensors", None, "as the folder models--"),
        ("model.safetensors", {"architecture": "efficientnet_b0"}, r"as config\.json beside it says"),
        ("tf_efficientnet_b0.safetensors", {"architecture": "efficientnet_b0"}, r"as config\.json beside it says"),
        ("tf_efficientnet_b0_aa-827b6e33.safetensors", None, None),
        ("models--timm--tf_efficientnetv2_b0.in1k/snapshots/0a1/model.safetensors", None, None),
        ("efficientnet_b0.safetensors", {"architecture": "tf_efficientnet_b0"}, None),
        ("model.safetensors", {"architecture": "tf_efficientnetv2_s"}, None),
        ("model.safetensors", {"architectures": ["?"]}, "unknown"),
        ("efficientnet_b0/model.safetensors", None, "unknown"),  # any folder may be called so
        ("model.safetensors", None, "unknown"),
    ],
)
def test_files_of_networks_of_timm_that_compute_something_else(place, config, message, state, tmp_path, caplog):
    path, model = tmp_path / place, tiny()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    if config:
        (path.parent / "config.json").write_text(json.dumps(config))
    if message not in (None, "unknown"):
        before = model.get_weights()
        with pytest.raises(WeightsError, match=f"{message}.*pads images differently.*Use a file of one of timm's tf_"):
            load_weights(model, path)
        assert all(map(np.array_equal, before, model.get_weights()))
        return
    report = load_weights(model, path)
    assert len(report.loaded) == len(model.weights)
    unknown = "Nothing says which of timm's networks the file is from"
    assert (unknown in report.describe(), unknown in caplog.text) == ((message == "unknown"),) * 2


@pytest.mark.parametrize("content", ["cut", "nonsense"])
def test_damaged_safetensors_are_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(timm_state(tiny(seed=1), TINY), path)
    path.write_bytes(path.read_bytes()[:-100] if content == "cut" else path.read_bytes()[:8] + b"{" * 100)
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read; it may be damaged"):
        load_weights(tiny(), path)


def test_a_pth_file_without_pytorch_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "model.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(
        WeightsError, match=r"PyTorch is not installed\. Run: pip install torch\. Or use a \.safetensors"
    ):
        load_weights(tiny(), tmp_path / "model.pth")


@pytest.mark.parametrize(("wrapper", "prefer_ema"), [(None, True), ("state_dict_ema", True), ("state_dict", False)])
def test_pth_files_are_opened_for_weights_alone_and_unwrapped(wrapper, prefer_ema, tmp_path, monkeypatch):
    """With a stand-in for PyTorch, which the reference environment does not have."""

    class Tensor:
        def __init__(self, value):
            self.value, self.shape = value, value.shape

        def float(self):
            return self

        def numpy(self):
            return self.value

    def load(path, *, map_location, weights_only):
        assert (map_location, weights_only) == ("cpu", True)
        state = {f"module.{name}": Tensor(value) for name, value in timm_state(saved, TINY).items()}
        return {"state_dict_ema": {}, "state_dict": {}, wrapper: state} if wrapper else state

    saved, model = tiny(seed=1), tiny()
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load, Tensor=Tensor))
    (tmp_path / "model.pth").write_bytes(b"\x80\x02}q\x00.")
    load_weights(model, tmp_path / "model.pth", prefer_ema=prefer_ema)
    assert_same_weights(model, saved)


def test_a_checkpoint_of_timms_training_script_names_its_network(state, tmp_path, monkeypatch):
    class Tensor(np.ndarray):
        float = numpy = lambda self: self

    content = {"arch": "efficientnet_b0", "state_dict": {name: value.view(Tensor) for name, value in state.items()}}
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=lambda *_, **__: content, Tensor=Tensor))
    (tmp_path / "last.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="is of timm's efficientnet_b0, as the entry 'arch' in it says"):
        load_weights(tiny(), tmp_path / "last.pth")


def test_a_pickle_that_pytorch_refuses_is_refused(tmp_path, monkeypatch):
    def load(*_, **__):
        raise RuntimeError("weights_only")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    (tmp_path / "model.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="not a file of plain PyTorch weights. Other contents could run code"):
        load_weights(tiny(), tmp_path / "model.pth")


def test_pytorch_itself_reads_plain_weights_and_refuses_code(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    saved, model = tiny(seed=1), tiny()
    state = {name: torch.from_numpy(value) for name, value in timm_state(saved, TINY).items()}
    for legacy in (False, True):
        torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
        load_weights(model, tmp_path / "model.pth")
        assert_same_weights(model, saved)
    torch.save({"state_dict": state, "code": Code(str(tmp_path / "ran"))}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="not a file of plain PyTorch weights"):
        load_weights(model, tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


SCRIPT = """
    import sys, numpy as np, timm, torch
    from safetensors.torch import save_file
    name, folder = sys.argv[1:]
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for key, value in model.state_dict().items():  # every number matters
        if key.endswith("running_var"):
            value.uniform_(0.75, 1.25)
        elif key.endswith("running_mean") or value.ndim == 1 and key.endswith("bias"):
            value.uniform_(-0.2, 0.2)
        elif value.ndim == 1:
            value.uniform_(0.75, 1.25)
        elif value.ndim > 1:
            bound = (3 / value[0].numel()) ** 0.5
            value.uniform_(-bound, bound)
    save_file(model.state_dict(), f"{folder}/model.safetensors")
    for size in (64, 75):
        images = np.load(f"{folder}/{size}.npy")
        with torch.no_grad():
            np.save(f"{folder}/{size}_logits.npy", model(torch.from_numpy(images)).numpy())
"""


ALL_OF_TIMM = [
    pytest.param(f"{family}_{size}", marks=() if size in ("b0", "s") else pytest.mark.slow)
    for family, sizes in (
        ("efficientnetv2", ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")),
        ("efficientnet", (*(f"b{number}" for number in range(9)), "l2")),
    )
    for size in sizes
]


@pytest.mark.skipif(not TIMM_PYTHON, reason="TIMM_PYTHON names no interpreter that has timm and PyTorch")
@pytest.mark.parametrize("name", ALL_OF_TIMM)
def test_the_logits_are_timms(name, tmp_path):
    images = {size: (pixels(size, size).numpy() - 128) / 128 for size in (64, 75)}
    for size, values in images.items():
        np.save(tmp_path / f"{size}.npy", np.einsum("nhwc->nchw", values).copy())
    command = [TIMM_PYTHON, "-c", textwrap.dedent(SCRIPT), f"tf_{name}", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    variant = {"efficientnet_b3": "efficientnet-b3-keras"}.get(name, name.replace("_", "-"))
    model = build_model(variant, include_preprocessing=False)
    report = load_weights(model, tmp_path / "model.safetensors")
    assert len(report.loaded) == len(model.weights)
    for size, values in images.items():
        theirs = np.load(tmp_path / f"{size}_logits.npy")
        ours = model(tf.constant(values)).numpy()
        print(f"{name} at {size} px: largest difference {np.abs(ours - theirs).max() / np.abs(theirs).max():.1e}")
        assert_close(ours, theirs)
