"""What an installation consists of: one package on top level, and dependencies that leave TensorFlow alone."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import sys
import zipfile

import pytest

from effnetv2_keras.basics.packages import EXTRAS
from tests.environments import matrix

ROOT = pathlib.Path(__file__).parents[2]
NEEDED = {
    "absl", "filelock", "h5py", "jinja2", "matplotlib", "numpy", "PIL", "pooch", "psutil", "pydantic", "yaml",
    "requests", "rich",
}  # fmt: skip
"""The modules of the dependencies in pyproject.toml."""


def imported_at_once(file: pathlib.Path) -> set[str]:
    """Returns the packages that a module imports when it is imported itself."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    return names - set(sys.stdlib_module_names if sys.version_info >= (3, 10) else names & STANDARD)


STANDARD = {
    "__future__", "abc", "argparse", "ast", "atexit", "base64", "bisect", "bz2", "codecs", "collections", "contextlib",
    "copy", "csv", "ctypes", "dataclasses", "datetime", "difflib", "enum", "errno", "fnmatch", "functools", "gc",
    "getpass", "gzip", "hashlib", "html", "importlib", "inspect", "io", "itertools", "json", "logging", "lzma", "math",
    "multiprocessing", "operator", "os", "pathlib", "pickle", "pkgutil", "platform", "random", "re", "resource",
    "shlex", "shutil", "signal", "socket", "statistics", "string", "struct", "subprocess", "sys", "tarfile",
    "tempfile", "textwrap", "threading", "time", "traceback", "types", "typing", "unicodedata", "urllib", "uuid",
    "warnings", "weakref", "zipfile", "zlib",
}  # fmt: skip
"""The modules of Python that the package uses, for Python 3.9, which does not list its own."""


@pytest.mark.parametrize("folder", sorted({path.parent for path in (ROOT / "effnetv2_keras").rglob("*.py")}), ids=str)
def test_modules_import_only_what_an_installation_has(folder):
    allowed = NEEDED | {"effnetv2_keras", "tensorflow"}
    if folder.name == "search":  # needs the extra of the same name; cli.py explains it
        allowed |= {"optuna", "sqlalchemy"}
    for file in folder.glob("*.py"):
        assert imported_at_once(file) <= allowed, file


@pytest.mark.parametrize(
    ("before", "after", "seconds", "megabytes", "said"),
    [
        ({"numpy": "1.26.4"}, {"numpy": "1.26.4", "rich": "15.0.0"}, 5, 60, ""),
        ({"numpy": "1.26.4"}, {"numpy": "2.0.1"}, 5, 60, "changed numpy 1.26.4 -> 2.0.1"),
        ({"tensorflow-cpu": "2.18.1"}, {"tensorflow": "2.21.0"}, 5, 60, "changed tensorflow-cpu 2.18.1 -> None"),
        ({}, {}, 61, 151, "it took 61 s; it added 151 MB"),
    ],
)
def test_the_matrix_notices_what_an_installation_changes(before, after, seconds, megabytes, said):
    assert matrix.check_install(before, after, seconds, megabytes) == said


def test_rows_of_the_table_are_replaced_and_sorted(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(f"before\n{matrix.BEGIN}{matrix.END}after\n")
    passed = dict.fromkeys(("install", *matrix.STEPS), "")
    versions = {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.5.5"}
    new = matrix.Result("tensorflow==2.21", "3.13", versions, 12.4, 99.6, passed)
    old = matrix.Result("tensorflow-cpu==2.15", "3.9", {}, 5.0, 80.0, {**passed, "train": "it failed"})
    matrix.write_table([new], file)
    matrix.write_table([old], file)
    lines = file.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[4] == "| tensorflow-cpu 2.15 |  | 3.9 |  | 80 MB, 5 s | yes | yes | yes | yes | yes | no | yes | yes |"
    assert lines[5].startswith("| tensorflow 2.21.0 | 3.15.1 | 3.13 | 2.5.5 | 100 MB, 12 s | yes | yes |")
    matrix.write_table([dataclasses.replace(old, wrong=passed)], file)
    assert [line.count(" no ") for line in file.read_text().splitlines()[4:6]] == [0, 0]
    assert (new.passed, old.passed) == (True, False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return zipfile.ZipFile(matrix.build_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.mark.slow
def test_the_wheel_has_one_package_with_all_modules(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "effnetv2_keras").rglob("*.*")
        if path.suffix not in (".pyc", "")
    }
    assert names == expected | {f"effnetv2_keras/hparams/{path.name}" for path in (ROOT / "hparams").glob("*.py")}


@pytest.mark.slow
def test_the_wheel_needs_no_tensorflow_and_has_an_extra_for_each_package(wheel):
    (folder,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "effnetv2 = effnetv2_keras.cli:run" in wheel.read(f"{folder}/entry_points.txt").decode()
    lines = wheel.read(f"{folder}/METADATA").decode().splitlines()
    needed = [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert len(needed) == len(NEEDED)
    assert not [line for line in needed if "tensor" in line or "keras" in line]
    assert {line.split()[-1] for line in lines if line.startswith("Provides-Extra:")} == {
        *EXTRAS.values(), "gpu", "all",
    }  # fmt: skip
