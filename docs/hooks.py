"""Writes the pages that come from the code, when MkDocs builds the site; none of them is committed.

``index.md`` is the README, ``contributing.md`` and ``changelog.md`` are the files of these names, ``settings.md`` lists
every setting of ``Config``, ``cli.md`` every flag, and ``networks.md`` has the arguments of the networks' functions.
"""

from __future__ import annotations

import ast
import math
import os
import pathlib
import posixpath
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]

REPOSITORY_FILES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_COLUMNS = ("setting", "type", "default", "allowed", "unit", "description", "source")
_PLACES = {"start": "first", "end": "last"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages; MkDocs calls this once per build."""
    from mkdocs.structure.files import File

    # mkdocstrings lays out signatures with ruff, which an environment that is not activated has beside its Python.
    os.environ["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Turns the links of a notebook to Markdown pages into links of the site, which mkdocs-jupyter leaves as they are.

    Raises:
        PluginError: if a notebook links to a page that does not exist.
    """
    from mkdocs.exceptions import PluginError

    def site_link(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link["page"]))
        target = files.get_file_from_path(path)
        if target is None:
            raise PluginError(f"{page.file.src_uri} links to {link['page']}, but the site has no page {path}.")
        return f'href="{target.url_relative_to(page.file)}{link["anchor"] or ""}"'

    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="(?P<page>[^":#]+\.md)(?P<anchor>#[^"]*)?"', site_link, html)


def pages() -> dict[str, str]:
    """Gives the content of every generated page by its path below ``docs/``."""
    if str(ROOT) not in sys.path:  # MkDocs does not run where the package is
        sys.path.insert(0, str(ROOT))
    copied = {page: _moved((ROOT / name).read_text("utf-8")) for page, name in REPOSITORY_FILES.items()}
    return {**copied, "settings.md": settings_page(), "cli.md": command_line_page(), "networks.md": networks_page()}


def _moved(text: str) -> str:
    """Adapts links of a file at the repository's root to the site's pages."""
    text = text.replace("](docs/", "](").replace("](LICENSE)", "](https://www.apache.org/licenses/LICENSE-2.0)")
    for page, name in REPOSITORY_FILES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def settings_page() -> str:
    """Lists every setting of ``Config``, section by section."""
    from effnetv2_keras.config import Config

    parts = [
        "# Settings\n",
        "`--hparam_str=SECTION.SETTING=VALUE,...` and YAML files override them, and a run's `config.yaml` holds them "
        "all. The defaults are those of `Config()`; a [recipe](recipes.md) may set others. Lists are written `1|2|3`, "
        "and `None` is written `None`.\n",
    ]
    for name, field in Config.model_fields.items():
        rows = _settings_of(field.annotation, field.default, f"{name}.")
        parts += [f"## {name}\n", f"{_first_line(field.annotation)}\n", *_table(_COLUMNS, rows)]
    return "\n".join(parts)


def _settings_of(section: Any, defaults: Any, prefix: str) -> Iterator[list[str]]:
    from effnetv2_keras.config import RampConfig

    for name, field in section.model_fields.items():
        default, extra = getattr(defaults, name), field.json_schema_extra or {}
        if isinstance(default, RampConfig):
            for end in ("start", "end"):
                value, text = getattr(default, end), f"{field.description}: value in the {_PLACES[end]} stage"
                yield _row(f"{prefix}{name}.{end}", "number", value, _range(name), extra, text)
        else:
            kind, allowed = _kind(field.annotation), _allowed(field.annotation, field.metadata)
            yield _row(f"{prefix}{name}", kind, default, allowed, extra, field.description)


def _row(name: str, kind: str, default: Any, allowed: str, extra: dict[str, str], description: str) -> list[str]:
    source = extra.get("source") or "this package"
    return [f"`{name}`", kind, f"`{_written(default)}`", allowed, extra.get("unit") or "-", description, source]


def _range(quantity: str) -> str:
    """Says between which values a quantity of the stages must stay."""
    from effnetv2_keras.progressive import QUANTITIES

    low, high = QUANTITIES[quantity].low, QUANTITIES[quantity].high
    return f"≥ {low:g}" + (f", ≤ {high:g}" if math.isfinite(high) else "")


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, getattr(types, "UnionType", None)):
        return " or ".join("None" if part is type(None) else _kind(part) for part in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is typing.Literal:
        return "choice"
    return {"str": "text", "float": "number", "int": "integer", "bool": "true or false"}[annotation.__name__]


def _allowed(annotation: Any, metadata: Any = ()) -> str:
    """Says which values a type and its limits allow; empty if any."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    items = [part for item in metadata for part in getattr(item, "metadata", [item])]
    bounds = [(sign, getattr(item, name, None)) for item in items for name, sign in _BOUNDS.items()]
    limits = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    inner: list[str] = []
    if origin is typing.Annotated:
        inner = [_allowed(arguments[0], arguments[1:])]
    elif origin is not None:
        inner = [_allowed(part) for part in arguments if part not in (type(None), ...)]
    return ", ".join(dict.fromkeys(filter(None, [*inner, *limits])))


def command_line_page() -> str:
    """Lists the modes, and every flag in groups of the modes that read it."""
    from effnetv2_keras.cli import MODES
    from effnetv2_keras.modes.options import Options, flag_table

    parts = [
        "# Command line\n",
        "`python main.py --mode=MODE --FLAG=VALUE ...`; `--mode=MODE --help` lists the flags of one mode. "
        "[The quickstart](quickstart.md#all-modes) says more about the modes.\n",
        *_table(("`--mode`", "what it does"), [(f"`{name}`", mode.help) for name, mode in MODES.items()]),
    ]
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, (kind, flag) in flag_table().items():
        bounds = [f"{sign} {bound}" for sign, bound in (("≥", flag.low), ("≤", flag.high)) if bound is not None]
        default = _written(getattr(Options(), name), ",") or "empty"
        cells = (f"`--{name}`", _kind(kind), f"`{default}`", _allowed(kind) or ", ".join(bounds), flag.help)
        groups.setdefault(flag.modes, []).append(cells)
    for modes, rows in groups.items():
        parts += [
            f"## {', '.join(modes) or 'Every mode'}\n",
            *_table(("flag", "type", "default", "allowed", "help"), rows),
        ]
    return "\n".join(parts)


def networks_page() -> str:
    """Shows call and documentation of ``EfficientNetV2S``, which the other variants share."""
    from effnetv2_keras.architecture import variants

    tree = ast.parse((ROOT / "effnetv2_keras" / "applications.py").read_text("utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    (network,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_efficientnet")
    network.args.args = network.args.args[1:]  # the variant, which each name stands for
    spec = variants.get_spec("efficientnetv2-s")
    documentation = ast.literal_eval(assigned["_DOCUMENTATION"]).format(
        title="EfficientNetV2S", model_name=spec.name, paper="2104.00298", size=spec.eval_size,
        dropout=0.2, own_dropout=spec.dropout_rate, normalization="``(pixel - 128) / 128``",
        weights='``"imagenet"``, ``"imagenet21k"`` or ``"imagenet21k-ft1k"``', default='``"imagenet"``',
    )  # fmt: skip
    names = ", ".join(f"`{name}`" for name in assigned if name.startswith("EfficientNet"))
    call = "EfficientNetV2S(\n    " + re.sub(r", (?![^\[]*\])", ",\n    ", ast.unparse(network.args)) + ",\n)"
    others = "Weights are those published for each; the default of `weights` is `'imagenet'`, except for V2-XL "
    others += "(`'imagenet21k-ft1k'`), L2 (`'noisy-student'`) and B8 (None)."
    return f"# Networks\n\n{names} share one call. {others}\n\n```text\n{call}\n\n{documentation}```\n"


def _written(value: Any, separator: str = "|") -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _first_line(section: Any) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Gives a Markdown table's lines, an empty one at its end."""
    written = (
        " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row)
        for row in (columns, ["---"] * len(columns), *rows)
    )
    return [*(f"| {row} |" for row in written), ""]
