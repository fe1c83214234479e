"""Something moves on the screen at least every ten seconds in every command of ``make demo``."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LONGEST = 10.0  # seconds


def demo_commands(folder):
    """The commands of ``make demo``, without the one that sets up the environment."""
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    lines = [line.strip().replace("$(DEMO)", str(folder)) for line in recipe.splitlines()]
    return [[sys.executable, *line.split()[1:]] for line in lines if line.startswith("$(BIN)/python")]


def gaps(command):
    """Yields the seconds before each line of output and before the end, with the line."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    before = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    ) as process:
        for line in process.stdout:
            now = time.monotonic()
            yield now - before, line
            before = now
        assert process.wait() == 0, command
    yield time.monotonic() - before, "the end"


def test_the_commands_of_the_demo_are_found(tmp_path):
    modes = [re.search(r"--mode=(\w+)|hparams\.demo", " ".join(command))[1] for command in demo_commands(tmp_path)]
    assert modes == ["plan", "train", "eval", None, "predict", "export", "preview"]


@pytest.mark.slow
def test_the_demo_is_never_silent(tmp_path):
    for command in demo_commands(tmp_path / "run"):
        for seconds, line in gaps(command):
            assert seconds <= LONGEST, (command, line)
