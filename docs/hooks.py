"""Writes the pages that come from the code, when MkDocs builds the site; none of them is committed.

``index.md`` is the README, ``contributing.md`` and ``changelog.md`` are the files of these names, ``settings.md`` lists
every setting of ``Config``, ``cli.md`` every flag, and ``networks.md`` has the arguments of the networks' functions.
"""

from __future__ import annotations

import ast
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic

ROOT = pathlib.Path(__file__).resolve().parents[1]

REPOSITORY_FILES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
UNITS = re.compile(
    r", (?P<last>pixels)\b|^(?:[\w=, ]+: )?(?:number of )?"
    r"(?P<first>pixels|seconds|steps|epochs|images|stages|millions|billions|probability|share)\b"
)
"""A description ends with its unit, or begins with it."""
SOURCES = re.compile(r"(?:paper,? )?(?:section [\d.]*\d|Tables? \d+|Algorithm \d+)|\bpaper\b|\breference code\b")
_COLUMNS = ("setting", "type", "default", "allowed", "unit", "description", "source")
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages; MkDocs calls this once per build."""
    from mkdocs.structure.files import File

    # mkdocstrings lays out signatures with ruff, which an environment that is not activated has beside its Python.
    os.environ["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


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
        parts += [f"## {name}\n", f"{_first_line(field.annotation)}\n", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
        parts += [_row(cells) for cells in _settings_of(field.annotation, field.default, f"{name}.")]
        parts.append("")
    return "\n".join(parts)


def _settings_of(section: Any, defaults: Any, prefix: str, above: str = "") -> Iterator[list[str]]:
    for name, field in section.model_fields.items():
        default, description = getattr(defaults, name), "; ".join(filter(None, (above, field.description)))
        if isinstance(default, pydantic.BaseModel):
            yield from _settings_of(type(default), default, f"{prefix}{name}.", description)
            continue
        source = ", ".join(dict.fromkeys(SOURCES.findall(description)))
        unit = UNITS.search(description)
        kind, allowed = _kind(field.annotation), _allowed(field.annotation, field.metadata)
        measured = (unit["last"] or unit["first"]) if unit else ""
        yield [f"`{prefix}{name}`", kind, f"`{_written(default)}`", allowed, measured, description, source]


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
    bounds = [(sign, getattr(item, name, None)) for item in metadata for name, sign in _BOUNDS.items()]
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
    """Lists every flag of the command line."""
    from absl import flags

    import effnetv2_keras.cli  # noqa: F401  defines the flags

    columns = ("flag", "type", "default", "allowed", "help")
    parts = [
        "# Command line\n",
        "`python main.py --mode=MODE --FLAG=VALUE ...`. [The quickstart](quickstart.md#all-modes) describes the modes. "
        "A help text that begins with names of modes is about these alone.\n",
        _row(columns),
        _row(["---"] * len(columns)),
    ]
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("effnetv2_keras") else ():
            bounds = [
                (sign, getattr(flag.parser, f"{end}_bound", None)) for end, sign in (("lower", "≥"), ("upper", "≤"))
            ]
            values = [f"`{value}`" for value in getattr(flag.parser, "enum_values", ())]
            allowed = values or [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
            default = f"`{(flag.default_as_str or '').strip(chr(39)) or flag.default or 'empty'}`"
            parts.append(_row([f"`--{flag.name}`", flag.flag_type(), default, ", ".join(allowed), flag.help]))
    return "\n".join([*parts, ""])


def networks_page() -> str:
    """Shows call and documentation of ``EfficientNetV2S``, which the other variants share."""
    from effnetv2_keras.architecture import variants

    tree = ast.parse((ROOT / "effnetv2_keras" / "applications.py").read_text("utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    (network,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_efficientnet")
    network.args.args = network.args.args[1:]  # the variant, which each name stands for
    spec = variants.get_spec("efficientnetv2-s")
    documentation = ast.literal_eval(assigned["_DOCUMENTATION"]).format(
        title="EfficientNetV2S", variant=spec.name, paper="2104.00298", size=spec.eval_size,
        dropout=spec.dropout_rate, normalization="``(pixel - 128) / 128``",
    )  # fmt: skip
    names = ", ".join(f"`{name}`" for name in assigned if name.startswith("EfficientNet"))
    call = "EfficientNetV2S(\n    " + re.sub(r", (?![^\[]*\])", ",\n    ", ast.unparse(network.args)) + ",\n)"
    return f"# Networks\n\n{names} share one call.\n\n```text\n{call}\n\n{documentation}```\n"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "|".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _first_line(section: Any) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _row(cells: Any) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"
