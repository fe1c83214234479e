"""What the claims share: their flags, their settings, and a process on one core for each run.

Every claim trains a network of about 0.8 million parameters (half the width and depth of B0) on photographs, with the
recipe ``folder`` and images of at most 96 px. The runs with one seed come before those with the next, so that the
results are complete pairs at any time. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.ablations.harness import constant_regularisation
from benchmarks.claims import rows
from benchmarks.one_core import run_on_cores
from effnetv2_keras.architecture.specs import ModelSpec
from effnetv2_keras.architecture.variants import get_spec
from effnetv2_keras.basics.ending import end_process
from effnetv2_keras.config import Config, Facts
from effnetv2_keras.errors import Interrupted

NETWORK = "efficientnetv2-nano"
"""B0 with half its width and half its depth."""

_NANO = get_spec(NETWORK)

FIRST, LAST, STAGES = 48, 96, 4
"""Sides of the first and last training images, pixels, and number of stages: 48, 64, 80 and 96 px."""

FIXED: Mapping[str, Any] = {"progressive.stages": 1}
"""Changes for images of one size, the last, and the last regularization."""

_IMAGES = pathlib.Path(__file__).parents[2] / "docs" / "images"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run trains.

    Attributes:
        name: name in the results. Settings of different claims with one name are the same, so their runs are shared.
        changes: changes to the progressive training of ``base_config``, by dotted key.
        network: network to train.
        like: name of the setting that is the same but for the number of epochs. None for ``--epochs`` epochs.
        in_time_of: name of the setting whose processor time this one takes, if ``like`` is given.
        constant: whether all stages have the regularization of the last.
    """

    name: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    network: ModelSpec = _NANO
    like: str | None = None
    in_time_of: str = "fixed"
    constant: bool = False


FIXED_SIZE = Setting("fixed", FIXED)
"""The setting with which the others are compared."""

ADAPTIVE = Setting("progressive-adaptive")
"""Progressive learning as in the paper: larger images and stronger regularization from stage to stage."""


def base_config(photos: str, facts: Facts, epochs: float) -> Config:
    """Returns the recipe ``folder`` with four stages of 48 to 96 px, which is evaluated every five epochs.

    Args:
        photos: folder with ``train``, ``validation`` and ``test``.
        facts: number and size of the photographs.
        epochs: number of epochs.
    """
    import hparams

    return hparams.load("folder", NETWORK, find_facts=lambda _: facts).override(
        {
            "data.data_dir": photos,
            "progressive.stages": STAGES,
            "progressive.image_size.start": FIRST,
            "progressive.image_size.end": LAST,
            "train.epochs": epochs,
            "eval.isize": LAST,
            "eval.every_epochs": min(5.0, epochs / 2),
            "runtime.preflight": False,
            "runtime.tensorboard": False,
            "runtime.keep_checkpoint_max": 1,
        }
    )


def config_of(setting: Mapping[str, Any], base: Config, seed: int) -> Config:
    """Returns the configuration of a run.

    Args:
        setting: a setting as in a job, see ``jobs_of``.
        base: result of ``base_config``.
        seed: seed of the run.
    """
    config = base.with_network(ModelSpec.from_json(setting["network"]))
    constant = constant_regularisation(config) if setting["constant"] else {}
    return config.override({**constant, **setting["changes"], "train.seed": seed})


def make_parser(claim: str, description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags of all claims.

    Args:
        claim: name of the claim, which is that of its files.
        description: description for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder with train, validation and test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=float, default=60, help="epochs, except at equal processor time")
    parser.add_argument("--cores", type=int, nargs="+", default=[0], help="cores to use, one run on each")
    parser.add_argument("--only", nargs="+", help="only these settings")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("claims_runs"), help="folder of the runs")
    parser.add_argument("--plot", type=pathlib.Path, default=_IMAGES / f"claims_{claim}.png")
    parser.add_argument("--report", action="store_true", help="only show the results so far")
    parser.set_defaults(claim=claim)
    return parser


def jobs_of(options: argparse.Namespace, settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Returns the runs that have no results yet, seed by seed, each as a dictionary for ``benchmarks.claims.job``."""
    chosen = [setting for setting in settings if not options.only or setting.name in options.only]
    done = {rows.key_of(row) for row in rows.read(options.results)}
    shared = {
        "photos": options.photos,
        "base_epochs": options.epochs,
        "results": str(options.results / f"{options.claim}.jsonl"),
    }
    jobs = []
    for seed in options.seeds:
        for setting in chosen:
            folder = options.work / f"{options.epochs:g}_epochs" / setting.name / f"seed_{seed}"
            described = {**dataclasses.asdict(setting), "network": setting.network.to_json()}
            described["setting"] = described.pop("name")
            jobs.append({**shared, **described, "seed": seed, "folder": str(folder)})
    return [job for job in jobs if rows.key_of(job) not in done]


def run(options: argparse.Namespace, settings: Sequence[Setting]) -> None:
    """Trains all settings with all seeds, unless ``--report`` is set or their results are there.

    Raises:
        SystemExit: if ``--photos`` is missing, a run fails, or a signal arrives.
    """
    if options.report:
        return
    if not options.photos:
        raise SystemExit("Give --photos DIR with the folders train, validation and test, or --report.")
    jobs = jobs_of(options, settings)
    print(f"{len(jobs)} runs to do", file=sys.stderr, flush=True)
    run_processes("benchmarks.claims.job", jobs, options.cores)


def run_processes(module: str, jobs: Sequence[Mapping[str, Any]], cores: Sequence[int]) -> None:
    """Runs ``python -m MODULE JOB`` for each job, one at a time on each core.

    A signal to this process also ends the running processes, which save their state first.

    Args:
        module: name of the module.
        jobs: the jobs, which are passed as JSON with their ``core``; ``setting`` and ``seed`` name them in messages.
        cores: numbers of the cores.

    Raises:
        SystemExit: if a process fails, after the end of the others, or if a signal arrives.
    """
    running: set[subprocess.Popen[bytes]] = set()
    failed: list[str] = []

    def run_job(job: Mapping[str, Any], core: int) -> None:
        with subprocess.Popen([sys.executable, "-m", module, json.dumps({**job, "core": core})]) as process:
            running.add(process)
            if process.wait():
                failed.append(f"{job['setting']} with seed {job['seed']}")
            running.discard(process)

    def stop(number: int, _: object) -> None:
        for process in [*running]:
            process.terminate()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    run_on_cores(jobs, cores, run_job)
    if failed:
        raise SystemExit(f"Not finished: {', '.join(failed)}. The reasons are above; the same command goes on.")


def work(do: Callable[[dict[str, Any]], None], job: str) -> None:
    """Does a job of ``run_processes`` in its process and ends the process; prints only the message of a signal."""
    try:
        do(json.loads(job))
    except Interrupted as end:
        print(end, file=sys.stderr)
        end_process(1)
        sys.exit(1)
    end_process(0)  # else Python waits a minute for iterators of TensorFlow
