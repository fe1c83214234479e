"""Downloads from a server on the loopback interface that speaks the protocol of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
import time
import types

import numpy as np
import pytest
from safetensors.numpy import save

import effnetv2_keras
from effnetv2_keras.errors import UsageError
from effnetv2_keras.weights import WeightsError, hub, load_weights, registry
from effnetv2_keras.weights.download import DownloadError
from effnetv2_keras.weights.published import TIMM
from tests.tiny import TINY
from tests.weights.filled import assert_same_weights, tiny
from tests.weights.serving import serving
from tests.weights.test_timm import timm_state

REPOSITORY = "timm/tf_efficientnetv2_b0.in1k"
CONTENT = np.random.default_rng(0).bytes(60_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40


FOLDER = f"/{REPOSITORY}/resolve/main"


@pytest.fixture
def server(monkeypatch):
    """A hub with one repository, whose ``HF_ENDPOINT`` is set."""
    with serving(
        files={f"{FOLDER}/model.safetensors": CONTENT},
        headers={"X-Repo-Commit": COMMIT},
        reasons={FOLDER: "EntryNotFound", "/no/": "RepoNotFound", "/shy/": "GatedRepo"},
    ) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setattr(hub.download, "FIRST_PAUSE", 0.001)
        for module in ("file_download", "utils._http"):
            monkeypatch.setattr(
                f"huggingface_hub.{module}.time",
                types.SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic),
            )
        yield server


def test_a_file_is_downloaded_once_with_its_description(server, tmp_path, capfd):
    server.files[f"{FOLDER}/config.json"] = b"{}"
    first = hub.fetch(REPOSITORY, "model.safetensors", tmp_path)
    assert first.read_bytes() == CONTENT
    assert first.with_name("config.json").read_bytes() == b"{}"
    assert capfd.readouterr().err.startswith(f"Downloading model.safetensors from {server.address}{FOLDER}/")
    count = len(server.asked)
    assert hub.fetch(REPOSITORY, "model.safetensors", tmp_path) == first
    assert len(server.asked) == count  # no request at all


def test_an_interrupted_download_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.cuts = [40_000]
    assert hub.fetch(REPOSITORY, "model.safetensors", tmp_path).read_bytes() == CONTENT
    assert server.sent[0] == 40_000
    assert server.sent[1] < 30_000  # what was in a buffer is lost


def test_a_damaged_file_is_downloaded_once_more(server, tmp_path):
    server.headers["X-Linked-Etag"] = f'"{"0" * 64}"'
    with pytest.raises(DownloadError, match=f"is damaged, .*SHA-256 is {SHA256}, but should be 0{{64}}"):
        hub.fetch(REPOSITORY, "model.safetensors", tmp_path)
    assert server.sent == [len(CONTENT)] * 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(CONTENT)]


def test_a_busy_hub_is_asked_again(server, tmp_path):
    server.refusals = [503]
    assert hub.fetch(REPOSITORY, "model.safetensors", tmp_path).read_bytes() == CONTENT


def test_what_does_not_exist_is_said(server, tmp_path):
    tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in ("README.md", "model.safetensors")]
    server.files[f"/api/models/{REPOSITORY}/tree/main"] = json.dumps(tree).encode()
    info = {"id": REPOSITORY, "siblings": [{"rfilename": entry["path"]} for entry in tree]}
    server.files[f"/api/models/{REPOSITORY}"] = json.dumps(info).encode()
    for repository, message in (
        (REPOSITORY, rf"{REPOSITORY} has no file a\.h5\. Its files of weights are model\.safetensors\."),
        ("no/where", "no repository no/where on the Hugging Face hub, or it is private"),
        ("shy/model", f"shy/model asks you to accept its terms at {server.address}/shy/model"),
    ):
        with pytest.raises(DownloadError, match=message):
            hub.fetch(repository, "a.h5", tmp_path)


def timm_file(model):
    """Returns the content of a ``.safetensors`` file with the weights of the tiny model, as timm has them."""
    return save(timm_state(model, TINY))


@pytest.mark.parametrize("name", [f"timm:{REPOSITORY[5:]}", f"hf:{REPOSITORY}", f"hf:{REPOSITORY}/model.safetensors"])
def test_names_of_the_hub(name, server, tmp_path):
    path = registry.fetch(name, "efficientnetv2-b0", with_top=True, cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT


def test_weights_of_timm_are_loaded(server, tmp_path):
    saved, model = tiny(seed=1), tiny()
    server.files[f"{FOLDER}/model.safetensors"] = timm_file(saved)
    report = load_weights(model, f"hf:{REPOSITORY}", cache_dir=tmp_path)
    assert_same_weights(model, saved)
    assert report.warnings == ()  # the folder in the cache says which network it is


def test_a_folder_of_another_of_timms_networks_is_refused(server, tmp_path):
    """As before for files: their padding differs."""
    server.files["/timm/efficientnet_b0.ra_in1k/resolve/main/model.safetensors"] = timm_file(tiny(seed=1))
    with pytest.raises(WeightsError, match="is of timm's efficientnet_b0"):
        load_weights(tiny(), "hf:timm/efficientnet_b0.ra_in1k", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:imagenet",
            "'timm:imagenet' are not known for 'efficientnetv2-b0'. Names for efficientnetv2-b0 are "
            "timm:tf_efficientnetv2_b0.in1k",
        ),
        ("timm:tf_efficientnetv2_s.in1k", "are those of 'efficientnetv2-s', but the network is 'efficientnetv2-b0'"),
        ("hf:imagenet", "The weights are 'hf:imagenet', but must be hf:OWNER/REPOSITORY or hf:OWNER/REPOSITORY/FILE"),
        ("hf:", "but must be hf:OWNER"),
    ],
)
def test_names_that_are_not_known_say_which_are(name, message, tmp_path):
    with pytest.raises(WeightsError, match=re.escape(message)):
        registry.fetch(name, "efficientnetv2-b0", with_top=True, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "timm:imagenet"}, "Names for efficientnetv2-b0 are timm:tf_efficientnetv2_b0.in1k"),
        (
            {"weights": "timm:tf_efficientnetv2_b3.in21k"},
            "classes is 1000, but the weights 'timm:.*' have 21843 classes",
        ),
        ({"weights": "hf:imagenet", "classes": 3}, "must be hf:OWNER/REPOSITORY"),
        ({"weights": "imagenet1k"}, "Use one of imagenet, .*, timm:NAME and hf:OWNER/REPOSITORY"),
    ],
)
def test_functions_like_those_of_keras_take_the_names(arguments, message, monkeypatch):
    monkeypatch.setattr("effnetv2_keras.applications.build_flat", None)
    with pytest.raises(UsageError, match=message):
        effnetv2_keras.EfficientNetV2B0(**arguments)


def test_a_network_without_a_name_has_no_names(tmp_path):
    with pytest.raises(
        WeightsError, match="'timm:tf_b0' are not known for one without a name. Names of other networks"
    ):
        registry.fetch("timm:tf_b0", None, with_top=True, cache_dir=tmp_path)


def test_timms_names_belong_to_variants():
    assert set(TIMM.values()) == {variant for variant, _ in registry.PUBLISHED} | {"efficientnet-b8"}
    assert TIMM["tf_efficientnet_b3.ns_jft_in1k"] == "efficientnet-b3-keras"
    assert TIMM["tf_efficientnetv2_xl.in21k"] == "efficientnetv2-xl"
    assert registry.class_count("timm:tf_efficientnetv2_xl.in21k") == 21843
    assert registry.class_count("timm:tf_efficientnetv2_xl.in21k_ft_in1k") == 1000
    assert registry.class_count("hf:timm/tf_efficientnetv2_xl.in21k") is None


def test_without_a_connection_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(WeightsError) as caught:
        registry.fetch(f"hf:{REPOSITORY}", None, with_top=True, cache_dir=tmp_path)
    for text in (
        f"Cannot download http://127.0.0.1:9{FOLDER}/model.safetensors: ",
        f"was looked for in {tmp_path}",
        "pass the path of the file",
        "--hparam_str=train.ft_init_ckpt= ",
    ):
        assert text in str(caught.value)
