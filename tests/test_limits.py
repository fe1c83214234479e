"""The limits of CONTRIBUTING.md on the lengths of functions and modules."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FUNCTION, MODULE = 60, 300  # lines; of a function, without its docstring
SOURCES = [
    ROOT / "main.py",
    *(path for name in ("effnetv2_keras", "hparams", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))),
]


def too_long(text):
    """Returns a description of each function or module in ``text`` that exceeds a limit."""
    lines = text.count("\n")
    found = [f"{lines} lines in the module"] if lines > MODULE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = node.body[0] if ast.get_docstring(node) else None
            length = (
                node.end_lineno - node.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)
            )
            found += [f"{length} lines in {node.name}"] if length > FUNCTION else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_and_no_module_is_too_long(path):
    assert too_long(path.read_text(encoding="utf-8")) == []


def test_too_long_functions_and_modules_are_found():
    body = '    """Returns None."""\n' + "    pass\n" * 60
    assert too_long(f"def function():\n{body}") == ["61 lines in function"]
    assert too_long("x = 0\n" * 301) == ["301 lines in the module"]
