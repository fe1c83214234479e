"""Both notebooks run from top to bottom on tiny data, and what is committed of them is small and portable."""

from __future__ import annotations

import ast
import pathlib
import re

import nbclient
import nbformat
import pytest
import tensorflow as tf

from effnetv2_keras import build_model
from tests.images import write_classes
from tests.tiny import SMALL

pytestmark = pytest.mark.docs

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def parameters_cell(notebook):
    """Returns the position of the cell that has the tag ``parameters``, and the names that it sets."""
    (position,) = (
        position for position, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )
    assignments = ast.parse(notebook.cells[position].source).body
    return position, {assignment.targets[0].id for assignment in assignments}


def execute(name, folder, monkeypatch, **parameters):
    """Runs a notebook in ``folder`` with other parameters; a cell that fails raises ``CellExecutionError``."""
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / name, as_version=4)
    position, known = parameters_cell(notebook)
    assert set(parameters) <= known
    source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(source))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return {cell.id: "".join(output.get("text", "") for output in cell.get("outputs", ())) for cell in notebook.cells}


def test_the_photos_notebook_trains_evaluates_predicts_and_exports(tmp_path, monkeypatch):
    for split, count in (("train", 24), ("validation", 4), ("test", 4)):
        write_classes(tmp_path / "photos" / split, {"blue": count, "red": count}, seed=count)
    write_classes(tmp_path / "new_photos", {"blue": 1, "red": 1}, seed=100)
    (tmp_path / "tiny.json").write_text(SMALL.to_json())
    build_model(SMALL, num_classes=5).save_weights(str(tmp_path / "published.weights.h5"))
    printed = execute(
        "finetune_on_your_photos.ipynb",
        tmp_path,
        monkeypatch,
        MODEL="tiny.json",
        WEIGHTS="published.weights.h5",
        EPOCHS=1,
        BATCH_SIZE=8,
        IMAGE_SIZES=(24, 32),
        EVAL_SIZE=32,
        EVAL_SPLIT="test",
    )
    assert "48 photographs to train on, 8 held out" in printed["data"]
    assert "published.weights.h5" in printed["train"]
    assert "evaluated 8 of 8 images" in printed["evaluate"]
    assert printed["predict"].count("%") == 4  # two images of two classes
    assert re.fullmatch(r"checkpoint of step 6\nblue: [\d.]+%\nred: [\d.]+%\n", printed["model"])
    assert printed["serve"].count("%") == 2
    assert "\x1b" not in printed["train"]  # plain lines, not a progress bar
    assert "logits differ by at most" in printed["export"]
    assert set(tf.saved_model.load(str(tmp_path / "photos_run" / "saved_model")).signatures) >= {"encoded"}


def test_the_fit_notebook_trains_every_stage(tmp_path, monkeypatch):
    printed = execute(
        "progressive_learning_in_your_own_fit.ipynb",
        tmp_path,
        monkeypatch,
        NUM_STAGES=2,
        EPOCHS=2,
        NUM_IMAGES=200,
        BATCH_SIZE=40,
    )
    assert re.findall(r"stage (\d), (\d+) px", printed["fit"]) == [("1", "20"), ("2", "28")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_machine(path):
    text = path.read_text("utf-8")
    assert len(text) < 100_000
    assert not re.findall(r"/(?:root|home|Users|tmp|work|opt|usr)/[^\s\"]*", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_links_of_a_notebook_lead_to_headings(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#:]+)#?([^)]*)\)", text)
    assert links
    for link, anchor in links:
        headings = re.findall(r"^#+ (.*)$", (path.parent / link).read_text("utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"\W+", "-", heading.lower()) for heading in headings}


def test_a_cell_that_fails_is_found(tmp_path, monkeypatch):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="multiple of NUM_STAGES"):
        execute("progressive_learning_in_your_own_fit.ipynb", tmp_path, monkeypatch, EPOCHS=3)
