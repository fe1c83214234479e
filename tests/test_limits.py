"""The limits that CONTRIBUTING names: a function fits on a screen, and a module is read in one go."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FUNCTION, MODULE = 60, 300
SOURCES = [
    ROOT / "main.py",
    *(path for name in ("effnetv2_keras", "hparams", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))),
]


def too_long(text):
    """What exceeds a limit in a module, in words."""
    lines = text.count("\n")
    found = [f"{lines} lines in the module"] if lines > MODULE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            found += [f"{length} lines in {node.name}"] if length > FUNCTION else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_and_no_module_is_too_long(path):
    assert too_long(path.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_noticed():
    body = "    pass\n" * 60
    assert too_long(f"def function():\n{body}") == ["61 lines in function"]
    assert too_long("x = 0\n" * 301) == ["301 lines in the module"]
