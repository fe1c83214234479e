"""Messages quote the program that was run, and a worker starts the same one again."""

from __future__ import annotations

import importlib.machinery
import pathlib
import shutil
import subprocess
import sys

import pytest

from effnetv2_keras.basics import program
from effnetv2_keras.distribution import rejoin
from effnetv2_keras.errors import WorkerLost
from effnetv2_keras.runs import commands

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("/env/bin/effnetv2", "effnetv2"),
        ("effnetv2.exe", "effnetv2"),
        ("effnetv2-script.py", "effnetv2"),
        ("main.py", "python main.py"),
        ("", "python main.py"),  # an interactive session
        ("my_effnetv2.py", "python main.py"),
    ],
)
def test_commands_name_the_program(monkeypatch, file, words):
    monkeypatch.setattr(sys, "argv", [file])
    assert commands.resume(pathlib.Path("a run"), "--x=1") == f"{words} --mode=train '--model_dir=a run' --x=1"
    assert commands.of_mode("eval", pathlib.Path("run")) == f"{words} --mode=eval --model_dir=run"


def test_outside_of_a_checkout_other_programs_get_the_installed_command(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "_PACKAGE", tmp_path / "effnetv2_keras")
    monkeypatch.setattr(sys, "argv", ["my_training.py"])
    assert program.program() == ("effnetv2",)


@pytest.fixture
def as_module(monkeypatch):
    spec = importlib.machinery.ModuleSpec("effnetv2_keras.__main__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "effnetv2_keras" / "__main__.py"), "--mode=train"])


@pytest.mark.usefixtures("as_module")
def test_the_module_is_named_and_started_again(monkeypatch):
    assert commands.of_mode("eval", pathlib.Path("run")) == "python -m effnetv2_keras --mode=eval --model_dir=run"
    started = []
    monkeypatch.setattr(rejoin.os, "execv", lambda *command: started.append(command))
    rejoin.restart(WorkerLost("gone"))
    assert started == [(sys.executable, [sys.executable, "-m", "effnetv2_keras", "--mode=train"])]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["checkout", "installed"])
def test_the_module_finds_its_recipes_in_both_layouts(tmp_path, layout):
    shutil.copytree(ROOT / "effnetv2_keras", tmp_path / "effnetv2_keras")
    shutil.copytree(ROOT / "hparams", tmp_path / ("" if layout == "checkout" else "effnetv2_keras") / "hparams")
    (tmp_path / "elsewhere" / "hparams").mkdir(parents=True)
    (tmp_path / "elsewhere" / "hparams" / "__init__.py").write_text("raise ImportError('a package of the user')")
    place = 1 if layout == "installed" else 0  # 1: the user's own package hparams is found first
    code = (
        f"import sys; sys.path.insert({place}, {str(tmp_path)!r})\n"
        "from effnetv2_keras import hparams; print(hparams.__file__)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "elsewhere" if layout == "installed" else tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert tmp_path / "elsewhere" not in pathlib.Path(told.stdout.strip()).parents
    assert tmp_path in pathlib.Path(told.stdout.strip()).parents
