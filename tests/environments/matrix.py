"""Installs the wheel over each supported TensorFlow, in a fresh environment each, and tries it there: ``make matrix``.

In each environment, the installation must only add packages, take at most ``MOST_SECONDS`` of processor time besides
the downloads, and add at most ``MOST_MEGABYTES``. Then ``installed.py`` runs outside of the repository. ``--write``
puts the results into ``docs/environments.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs" / "environments.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- end of matrix -->\n"

PYTHONS = {
    "2.15": "3.9", "2.16": "3.10", "2.17": "3.11", "2.18": "3.12", "2.19": "3.12", "2.20": "3.13", "2.21": "3.13",
}  # fmt: skip
"""The Python with which each TensorFlow is tried; from the oldest to the newest, both have all of them."""
KINDS = ("tensorflow", "tensorflow-cpu")
CELLS = tuple(f"{kind}=={version}" for version in PYTHONS for kind in KINDS)
STEPS = ("import", "build", "logits", "Keras files", "train", "fit", "SavedModel")
"""The steps of ``installed.py``."""

MOST_SECONDS, MOST_MEGABYTES = 60, 150


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found in one environment.

    Attributes:
        cell: one of ``CELLS``.
        python: version of Python, ``"3.9"``.
        versions: of TensorFlow, Keras and NumPy; empty if none could be tried.
        seconds: processor time of the installation besides the downloads.
        megabytes: what it added.
        wrong: what went wrong, by step; empty texts for what passed.
    """

    cell: str
    python: str
    versions: dict[str, str]
    seconds: float
    megabytes: float
    wrong: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return not any(self.wrong.values())

    def row(self) -> tuple[str, ...]:
        """Returns the cells of its row in the table."""
        kind, _, version = self.cell.partition("==")
        marks = ["no" if self.wrong.get(step, "not tried") else "yes" for step in ("install", *STEPS)]
        versions = self.versions
        return (
            f"{kind} {versions.get('tensorflow', version)}", versions.get("keras", ""), self.python,
            versions.get("numpy", ""), f"{self.megabytes:.0f} MB, {self.seconds:.0f} s", *marks,
        )  # fmt: skip


HEADINGS = ("TensorFlow", "Keras", "Python", "NumPy", "added", "only adds", *STEPS)


def find_python(version: str) -> str | None:
    """Returns an interpreter of a version, on the PATH or of pyenv; None if there is none."""
    installed = sorted(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, installed)):
        command = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            continue
        if told == version:
            return candidate
    return None


def build_wheel(folder: pathlib.Path) -> pathlib.Path:
    """Builds the wheel of this checkout from a copy, beside which no older build lies, and returns its path."""
    copy = folder / "checkout"
    for name in ("effnetv2_keras", "hparams"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "-w", str(folder), str(copy))
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(python: str, *words: str) -> str:
    """Runs pip and returns its output.

    Raises:
        RuntimeError: if pip fails; the message ends with its own.
    """
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [python, "-m", "pip", *words], capture_output=True, text=True, check=False, env=environment, cwd="/"
    )
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def packages_of(python: str) -> dict[str, str]:
    """Returns the version of each installed package."""
    return {entry["name"].lower(): entry["version"] for entry in json.loads(pip(python, "list", "--format=json"))}


def size_of(folder: pathlib.Path) -> float:
    """Returns the size of the files in a folder, MB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def install(python: str, wheel: pathlib.Path, downloads: pathlib.Path) -> float:
    """Installs the wheel as ``pip install`` does it, from downloaded files, and returns the processor time of it, s."""
    report = downloads.with_suffix(".json")
    pip(python, "install", "--dry-run", "--quiet", "--report", str(report), str(wheel))
    chosen = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    needed = [f"{entry['name']}=={entry['version']}" for entry in chosen if entry["name"] != "effnetv2-keras"]
    pip(python, "download", "--quiet", "--no-deps", "-d", str(downloads), *needed)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pip(python, "install", "--quiet", "--no-index", "--find-links", str(downloads), str(wheel))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_install(before: dict[str, str], after: dict[str, str], seconds: float, megabytes: float) -> str:
    """Returns what is wrong with an installation; empty if nothing is."""
    changed = [
        f"{name} {version} -> {after.get(name)}" for name, version in before.items() if after.get(name) != version
    ]
    faults = [f"changed {', '.join(changed)}"] if changed else []
    faults += [f"it took {seconds:.0f} s"] if seconds > MOST_SECONDS else []
    faults += [f"it added {megabytes:.0f} MB"] if megabytes > MOST_MEGABYTES else []
    return "; ".join(faults)


def try_cell(cell: str, interpreter: str, wheel: pathlib.Path) -> Result:
    """Makes an environment with a TensorFlow, installs the wheel into it, and runs ``installed.py`` there."""
    kind, _, version = cell.partition("==")
    with tempfile.TemporaryDirectory(prefix="matrix_") as name:
        folder = pathlib.Path(name)
        subprocess.run([interpreter, "-m", "venv", str(folder / "venv")], check=True)
        python = str(folder / "venv" / "bin" / "python")
        pip(python, "install", "--quiet", "--upgrade", "pip")  # older ones cannot say what they would install
        pip(python, "install", "--quiet", "--no-cache-dir", f"{kind}=={version}.*")
        before, bytes_before = packages_of(python), size_of(folder / "venv")
        seconds = install(python, wheel, folder / "downloads")
        megabytes = size_of(folder / "venv") - bytes_before
        wrong = {"install": check_install(before, packages_of(python), seconds, megabytes)}
        found = run_installed(python, folder / "work")
        return Result(cell, PYTHONS[version], found, seconds, megabytes, {**wrong, **found.pop("wrong")})


def run_installed(python: str, folder: pathlib.Path) -> dict[str, Any]:
    """Runs ``installed.py`` in a folder of its own and returns what it prints."""
    folder.mkdir()
    here = pathlib.Path(__file__).parent
    for file in (here / "installed.py", here / "goldens" / "numbers.json", ROOT / "tests" / "models" / "filling.py"):
        shutil.copy(file, folder)
    hidden = ("PYTHONPATH", "TF_USE_LEGACY_KERAS", "KERAS_BACKEND", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment["EFFNETV2_KERAS_CACHE"] = str(folder / "cache")
    command = [python, "installed.py", "numbers.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        ended = f"installed.py ended with exit code {done.returncode}: {done.stderr[-3000:]}"
        return {"wrong": {STEPS[0]: ended, **dict.fromkeys(STEPS[1:], "not tried")}}
    return found


def write_table(results: list[Result], file: pathlib.Path = DOCS) -> None:
    """Writes a row for each result into the table of a file; rows of other environments stay."""
    head, begin, rest = file.read_text().partition(BEGIN)
    old, end, tail = rest.partition(END)
    assert end, f"{file} has no {BEGIN.strip()} and {END.strip()}"
    rows = {key_of(line): line for line in old.splitlines()[2:]}
    for result in results:
        line = f"| {' | '.join(result.row())} |"
        rows[key_of(line)] = line
    order = sorted(rows, key=lambda key: (list(PYTHONS).index(key[1]), key[0]))
    table = [f"| {' | '.join(HEADINGS)} |", "| --- " * len(HEADINGS) + "|", *(rows[key] for key in order)]
    file.write_text(f"{head}{begin}{''.join(f'{line}{chr(10)}' for line in table)}{end}{tail}")


def key_of(line: str) -> tuple[str, str]:
    """Returns distribution and minor version of TensorFlow in a row of the table."""
    match = re.match(r"\| (\S+) (\d+\.\d+)", line)
    assert match, line
    return match[1], match[2]


def main() -> None:
    """Tries all environments, or those that are named, and exits with 1 if something went wrong or none was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CELLS, default=CELLS, metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--write", action="store_true", help=f"write the table in {DOCS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="matrix_") as folder:
        wheel = build_wheel(pathlib.Path(folder))
        for cell in arguments.only:
            version = PYTHONS[cell.partition("==")[2]]
            interpreter = find_python(version)
            if interpreter is None:
                print(f"{cell}: not tried, because there is no Python {version} here.", flush=True)
                continue
            results.append(try_cell(cell, interpreter, wheel))
            tell(results[-1])
            if arguments.write:
                write_table(results)
    sys.exit(not results or not all(result.passed for result in results))


def tell(result: Result) -> None:
    """Prints a line about an environment, and what went wrong there."""
    print(" | ".join(f"{name}: {value}" for name, value in zip(HEADINGS, result.row())), flush=True)
    for step, text in result.wrong.items():
        if text:
            print(f"  {step}: {text}", flush=True)


if __name__ == "__main__":
    main()
