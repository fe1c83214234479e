"""Every code block of the README and the guides runs, on tiny data and tiny networks, or its marker says why not."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import flags, logging
from absl.testing import flagsaver

import effnetv2_keras
from effnetv2_keras import EfficientNetV2B0, cli
from effnetv2_keras.architecture import variants
from effnetv2_keras.models.keras_compat import path_of
from tests.docs.snippets import Snippet, read_snippets
from tests.images import write_classes
from tests.shallow import one_block_a_stage
from tests.tiny import SMALL

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = (
    "progressive.image_size.start=16,progressive.image_size.end=24,progressive.stages=2,train.epochs=0.4,"
    "train.batch_size=8,train.lr_warmup_epoch=0,eval.batch_size=8,eval.isize=24,data.augment=none,"
    "runtime.tensorboard=false,runtime.preflight=false"
)
"""Added to what a command sets itself, so that it takes seconds."""
OWN_NETWORK = """
import tensorflow as tf

def small(num_classes):
    pixels = tf.keras.Input((None, None, 3))
    x = tf.keras.layers.Conv2D(4, 3, strides=2)(pixels)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(pixels, tf.keras.layers.Dense(num_classes)(x))
"""

pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("graphs_as_traced")]


@contextlib.contextmanager
def tiny_networks():
    """Makes a few thousand parameters of every network that has a name."""
    real = dict(variants.MODELS)
    variants.MODELS.update({name: dataclasses.replace(SMALL, name=name) for name in real})
    try:
        yield
    finally:
        variants.MODELS.update(real)


def write_data(folder):
    """What the commands of the documentation read."""
    for split, count in (("train", 20), ("validation", 4), ("test", 4)):
        write_classes(folder / "photos" / split, {"cat": count, "dog": count}, seed=count)
    for name in ("new_photos", "lists", "mine"):
        (folder / name).mkdir()
    for name, repeats in (("train", 8), ("validation", 1)):
        with open(folder / "lists" / f"{name}.csv", "w", newline="") as file:
            images = sorted((folder / "photos" / name).rglob("*.*g"))[: 5 * repeats]
            csv.writer(file).writerows([("path", "label"), *((image, image.parent.name) for image in images)])
    for path in (folder / "photos" / "test").rglob("*_000.*"):
        shutil.copy(path, folder / "new_photos")
    (folder / "mine" / "nets.py").write_text(OWN_NETWORK)


def run_command(words):
    """Runs ``python main.py ...`` in this process."""
    assert words[:2] == ["python", "main.py"], f"{' '.join(words)}: only python main.py is run; give the block a marker"
    arguments = words[2:]
    mode = next((word.partition("=")[2] for word in arguments if word.startswith("--mode=")), "train")
    if mode in ("train", "preview"):
        given = next((word for word in arguments if word.startswith("--hparam_str=")), None)
        if given:
            arguments[arguments.index(given)] = f"{given},{SHORT}"
        else:
            arguments.append(f"--hparam_str={SHORT}")
    verbosity = logging.get_verbosity()
    network = contextlib.nullcontext() if mode in ("plan", "summary", "scale") else tiny_networks()
    try:
        with flagsaver.flagsaver(), network:
            cli.main(flags.FLAGS(["main.py", *arguments]))
    except SystemExit as error:
        pytest.fail(f"{' '.join(words)} ended with {error.code}")
    finally:
        logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A folder with the data and ``run``, for the pages that begin after training."""
    folder = tmp_path_factory.mktemp("run")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_command(["python", "main.py", "--mode=train", "--data_dir=photos", "--model_dir=run"])
    return folder / "run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch, request, capfd):
    snippets = [snippet for snippet in read_snippets(page) if snippet.is_run]
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if any('"run' in snippet.code or "=run" in snippet.code for snippet in snippets) and not trains(snippets, "run"):
        shutil.copytree(request.getfixturevalue("a_run"), tmp_path / "run")
    namespace = {"__name__": "documentation"}
    for snippet in snippets:
        if snippet.tag == "bash":
            for words in snippet.commands():
                run_command(words)
        else:
            run_python(snippet, namespace, capfd)


def test_the_readme_fits_in_stages(tmp_path, monkeypatch):
    """With epochs of 2 steps instead of 50, and a network of one layer."""
    (snippet,) = (snippet for snippet in read_snippets(ROOT / "README.md") if "FollowStages" in snippet.code)
    small = [tf.keras.layers.Conv2D(4, 3, strides=2), tf.keras.layers.GlobalAveragePooling2D()]
    monkeypatch.setattr(tf.keras.applications, "EfficientNetV2B0", lambda **_: tf.keras.Sequential(small))
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(snippet.code.replace("50", "2"), namespace)
    assert [stage.image_size for stage in namespace["plan"]] == [128, 160, 192, 224]
    assert len(namespace["model"].history.epoch) == 8


def test_the_guide_fine_tunes_in_keras(tmp_path, monkeypatch):
    """With images of 32 px, a few layers and random weights, of which only the last blocks have changed in the end."""
    (snippet,) = (one for one in read_snippets(ROOT / "docs" / "finetuning.md") if "base.trainable = False" in one.code)
    bases = []

    def build(**settings):
        bases.append(EfficientNetV2B0(**settings, weights=None))
        bases.append([variable.numpy() for variable in bases[0].weights])
        return bases[0]

    monkeypatch.setattr(effnetv2_keras, "EfficientNetV2B0", build, raising=False)
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    with one_block_a_stage():
        exec(snippet.code.replace("224", "32"), {})
    base, before = bases
    changed = {path_of(v) for v, old in zip(base.weights, before) if not np.array_equal(v.numpy(), old)}
    assert {name.split("_")[0] for name in changed} == {"block6a", "top"}


def trains(snippets, model_dir):
    return any(
        {"--mode=train", f"--model_dir={model_dir}"} <= set(words)
        for snippet in snippets
        if snippet.tag == "bash"
        for words in snippet.commands()
    )


def run_python(snippet, namespace, capfd):
    """Runs a block in its page's namespace; networks are tiny unless it names their layers or shows what it prints."""
    is_tiny = "block_" not in snippet.code and not any(snippet.expected_output())
    code = compile("\n" * (snippet.line - 1) + snippet.code, str(snippet.page), "exec")
    with tiny_networks() if is_tiny else contextlib.nullcontext():
        exec(code, namespace)
    printed = capfd.readouterr().out
    for line in snippet.expected_output():
        assert line in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nls\n```", "language is ''"),
        ("```console\nls\n```", "language is 'console'"),
        ("<!-- not run: -->\n```bash\nls\n```", "the marker gives no reason"),
        ("<!-- not run: needs X -->\ntext\n```bash\nls\n```", "1 markers do not stand directly before"),
        ("<!-- not run: needs X -->\n```text\nls\n```", "never run"),
        ("<!-- not run: needs X -->\n", "1 markers do not stand directly before"),
    ],
)
def test_mistakes_of_pages_are_found(text, message, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_snippets(page)


def test_a_block_is_read_with_its_commands(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "x\n\n<!-- not run: needs Y -->\n\n```bash\na --b \\\n  'c d'  # e\n\nf\n```\n```python\nprint(1)\n# 1\n```\n"
    )
    command, code = read_snippets(page)
    assert (command.reason, command.is_run, command.line) == ("needs Y", False, 6)
    assert list(command.commands()) == [["a", "--b", "c d"], ["f"]]
    assert code == Snippet(page, 12, "python", "print(1)\n# 1")
    assert list(code.expected_output()) == ["1"]
