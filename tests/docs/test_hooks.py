"""The generated pages of the documentation, and the README's links."""

import importlib.util
import pathlib
import re

import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks.pages()


def test_the_settings_page_has_a_row_for_every_setting(pages):
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*)$", pages["settings.md"], re.MULTILINE))
    assert set(rows) == {key for key, _ in flatten(Config().model_dump())}
    assert rows["train.batch_size"].startswith("integer | `4096` | ≥ 1 |")
    assert rows["train.lr_sched"].startswith("choice | `exponential` | `exponential`, `cosine`, `linear`, `constant` |")
    assert rows["progressive.image_size.end"].startswith("number | `224.0` | ≥ 1 |")
    assert rows["data.crop_area"].startswith("list of number or None | `None` |")
    numbers = {key: row for key, row in rows.items() if re.match(r"(list of )?(number|integer)", row)}
    assert not [key for key, row in numbers.items() if row.split(" | ")[3] == "-"], "a number needs its unit"
    assert not [key for key, row in rows.items() if not row.removesuffix(" |").split(" | ")[-1]], "a source"


def test_the_command_line_page_has_a_row_for_every_flag(pages):
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.*)$", pages["cli.md"], re.MULTILINE))
    assert {"mode", "model_dir", "strategy", "service_host"} <= set(rows)
    assert "`best`, `latest`" in rows["weights"]


def test_the_networks_page_shows_the_call(pages):
    assert "input_shape: tuple[int | None, int | None, int] | None=None,\n" in pages["networks.md"]
    assert "`EfficientNetL2`" in pages["networks.md"]


def test_links_of_copied_files_lead_to_pages(pages):
    known = {path.name for path in (ROOT / "docs").iterdir()} | set(pages)
    for page in ("index.md", "contributing.md", "changelog.md"):
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", pages[page]):
            assert link in known or (ROOT / "docs" / link).exists(), f"{page}: {link}"


def test_the_readme_is_short_and_its_links_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 160
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text):
        assert (ROOT / link).exists(), link
