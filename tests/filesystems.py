"""Temporary file systems for tests, on machines that permit mounting, and processes that run scripts in them."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
_IMPORTS = """
import os, pathlib, shutil, signal, subprocess, sys, time
import tests.conftest  # the same devices as here
folder = pathlib.Path(sys.argv[1])
def remount(options):
    subprocess.run(["mount", "-o", f"remount,{options}", "t", str(folder)], check=True)
"""


def python(script, folder, *, prefix=()):
    """Returns the command that runs a script, in which the variable ``folder`` is set."""
    return [*prefix, sys.executable, "-c", _IMPORTS + script, str(folder)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_in_tmpfs(script, folder, *, size):
    """Runs a script with a file system of ``size`` mounted at ``folder``, and returns its output."""
    if not _can_mount():
        pytest.skip("needs `unshare -rm` and `mount -t tmpfs`, which are not permitted here")
    folder.mkdir()
    mount = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size={size} t "{folder}" && exec "$@"', "sh")
    done = subprocess.run(
        python(script, folder, prefix=mount), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@functools.cache
def _can_mount():
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["unshare", "-rm", "mount", "-t", "tmpfs", "t", folder]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False
