"""What one environment writes and another reads: each writes all formats, each reads all that were written.

``EFFNETV2_KERAS_PYTHONS`` names interpreters with a colon between; each has the Keras that TensorFlow takes by itself.
``docs/environments.md`` holds the table; ``EFFNETV2_KERAS_WRITE_DOCS=1`` writes it anew.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import pytest

PYTHONS = [path for path in os.environ.get("EFFNETV2_KERAS_PYTHONS", "").split(os.pathsep) if path]
ROOT = pathlib.Path(__file__).parents[2]
DOCS, BEGIN, END = ROOT / "docs" / "environments.md", "<!-- table -->\n", "<!-- end of table -->\n"
VERSIONS = """
import effnetv2_keras.environment, json
from effnetv2_keras.models.keras_compat import IS_KERAS_3
import tensorflow as tf
print(json.dumps([tf.__version__.rpartition(".")[0], IS_KERAS_3]))
"""


def run(python: str, *command: str):
    """Runs Python; returns what its last line says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    done = subprocess.run([python, *command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def environments() -> dict[str, str]:
    """Interpreters by a name for the table."""
    versions = {python: run(python, "-c", VERSIONS) for python in PYTHONS}
    return {f"{version} with Keras {3 if is_3 else 2}": python for python, (version, is_3) in versions.items()}


def table(outcomes: dict[str, dict[str, dict[str, str]]]) -> str:
    """One row for each way to read; ``outcomes`` by writer, reader and way."""
    names = list(outcomes)
    ways = list(max((outcome for readers in outcomes.values() for outcome in readers.values()), key=len))
    lines = [
        "| " + " | ".join(["", *(f"written by TensorFlow {name}" for name in names)]) + " |",
        "| --- " * (1 + len(names)) + "|",
    ]
    for way in ways:
        cells = []
        for writer in names:
            readers = [reader for reader in names if outcomes[writer][reader].get(way) == "yes"]
            written = way in outcomes[writer][writer]
            cells.append("all" if len(readers) == len(names) else ", ".join(readers) if written else "not written")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(len(PYTHONS) < 2, reason="EFFNETV2_KERAS_PYTHONS names no two interpreters")
def test_what_one_writes_the_others_read(tmp_path):
    found = environments()
    script = str(ROOT / "tests" / "environments" / "exchange.py")
    for name, python in found.items():
        run(python, script, "write", str(tmp_path / name))
    outcomes = {}
    for writer in found:
        outcomes[writer] = {}
        for number, (reader, python) in enumerate(found.items()):
            copy = tmp_path / f"{writer} {number}"  # a run that goes on is changed by it
            shutil.copytree(tmp_path / writer, copy)
            outcomes[writer][reader] = run(python, script, "read", str(copy))
    own = {name: outcomes[name][name] for name in found}
    assert {outcome for ways in own.values() for outcome in ways.values()} == {"yes"}, own
    refusals = [
        text for readers in outcomes.values() for ways in readers.values() for text in ways.values() if text != "yes"
    ]
    assert not [text for text in refusals if text.startswith("differs")], refusals
    known = ("cannot be imported", "Could not", "batch_shape")
    assert all(any(reason in text for reason in known) for text in refusals), refusals
    before, rest = DOCS.read_text().split(BEGIN)
    if os.environ.get("EFFNETV2_KERAS_WRITE_DOCS"):
        DOCS.write_text(before + BEGIN + table(outcomes) + END + rest.split(END)[1])
    assert table(outcomes) == DOCS.read_text().split(BEGIN)[1].split(END)[0]
