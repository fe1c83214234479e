"""The generated pages of the documentation, and the README's links."""

import importlib.util
import pathlib
import re
import types

import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(hooks):
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


def test_links_of_notebooks_lead_to_pages_of_the_site(hooks):
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File, Files

    files = Files([File(name, "docs", "site", use_directory_urls=True) for name in ("a.md", "notebooks/b.ipynb")])
    notebook, page = (
        types.SimpleNamespace(file=files.get_file_from_path(name)) for name in ("notebooks/b.ipynb", "a.md")
    )
    html = '<a href="../a.md#x">a</a> <a href="../a.md">a</a> <a href="https://x.org/a.md">x</a>'
    changed = hooks.on_page_content(html, notebook, None, files)
    target = page.file.url_relative_to(notebook.file)
    assert changed == f'<a href="{target}#x">a</a> <a href="{target}">a</a> <a href="https://x.org/a.md">x</a>'
    assert hooks.on_page_content(html, page, None, files) == html
    with pytest.raises(PluginError, match=r"the site has no page missing\.md"):
        hooks.on_page_content('<a href="../missing.md">', notebook, None, files)
