"""Trains on a folder of photographs at equal time of one processor core: this package's recipes against plain Keras.

From random weights (``--compare scratch``):

- ``folder``: the recipe ``folder`` as it is; only the number of epochs is fitted to the time.
- ``one-size``: the same with one stage of the largest images instead of growing ones.
- ``keras-fit``: ``fit`` of Keras' EfficientNetV2-B0 at half width: AdamW, cosine from 0.003, whole images squeezed
  into squares of 64 px (96 px from 10 minutes), flips, and shifts by up to 15 %.

From weights (``--compare finetune``), which ``--weights`` names, a run of this package:

- ``finetune``: the recipe ``finetune`` from the run; ``finetune-h5``: from the same weights in a Keras file (.h5).
- ``folder``: from random weights.
- ``keras-guide``: the two phases of Keras' guide to transfer learning from the same weights: the classifier alone with
  Adam at 0.001 for 40 % of the time, then all layers at 0.00001, with BatchNorm frozen, flips and rotations.

Every run is a process on one core of its own. Its number of epochs follows from the processor time of a few measured
steps, and its own time is printed. All of them keep the weights of the best evaluation on the validation images, and
are then evaluated once on the test images. Prints a line for each run, and mean and standard deviation over the seeds.

    PYTHONPATH=. python benchmarks/own_photos.py --photos DIR --minutes 5 15 --seeds 0 1 2
    PYTHONPATH=. python benchmarks/own_photos.py --photos DIR --compare finetune --weights RUN --minutes 5

``DIR`` holds ``train/CLASS``, ``validation/CLASS`` and ``test/CLASS``. Runs in ``--results`` are not repeated.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

from benchmarks.one_core import run_on_cores, use_core
from benchmarks.plain_keras import keras_fit, keras_guide, write_h5
from effnetv2_keras.basics.ending import end_process

METHODS = {
    "scratch": ("folder", "one-size", "keras-fit"),
    "finetune": ("finetune", "finetune-h5", "folder", "keras-guide"),
}
_OVERHEAD = 25.0
"""Seconds that a run of this package takes besides: the check of the files, and its report."""


def train_here(job: dict[str, Any]) -> dict[str, Any]:
    """Trains in this process, as a job says, and returns its figures."""
    use_core(job["core"])
    train: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"keras-fit": keras_fit, "keras-guide": keras_guide}
    return {**job, **train.get(job["method"], _package)(job)}


def _package(job: dict[str, Any]) -> dict[str, Any]:
    import rich.console

    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.modes.evaluate import evaluate
    from effnetv2_keras.modes.subjects import load_run
    from effnetv2_keras.training.loop import train

    strategy, quiet = make_strategy("cpu"), rich.console.Console(quiet=True)
    config = _fitted_config(job, strategy)
    start = time.process_time()
    train(config, job["model_dir"], strategy=strategy, console=quiet)
    seconds = time.process_time() - start
    figures = {}
    for split in ("validation", "test"):
        subject = load_run(job["model_dir"], strategy, changes={"data.eval_split": split})
        result = evaluate(subject, strategy, console=quiet)
        figures |= {f"{split}": result["top1"], f"{split}_ema": result["top1_ema"]}
    return {**figures, "seconds": seconds, "epochs": config.train.epochs, "network": config.spec.name}


def _fitted_config(job: dict[str, Any], strategy: Any) -> Any:
    """Returns the recipe with the number of epochs that fits into the time."""
    import hparams
    from effnetv2_keras.config import Facts
    from effnetv2_keras.data.splits import open_splits, shorter_side
    from effnetv2_keras.modes.estimate import measure

    weights = {"finetune": job["weights"], "finetune-h5": job["h5"]}.get(job["method"])
    recipe, model = ("finetune", job["network"]) if weights else ("folder", None)
    splits = open_splits(hparams.load("folder").data.model_copy(update={"data_dir": job["photos"]}))
    facts = Facts(splits.train.num_examples, shorter_side(splits.train), weights)
    changes = {"data.data_dir": job["photos"], "train.seed": job["seed"], "runtime.tensorboard": False}
    changes |= {"progressive.stages": 1} if job["method"] == "one-size" else {}
    config = hparams.load(recipe, model, find_facts=lambda _: facts).override(changes)
    found = measure(config, splits, strategy, clock=time.process_time)

    def seconds(epochs: float) -> float:
        run = config.override({"train.epochs": epochs})
        stages = run.plan(run.total_steps(facts.num_train))
        training = sum(stage.num_steps * each for stage, each in zip(stages, found.stages))
        evaluations = stages[-1].end_step / run.evaluation_period(facts.num_train)
        return _OVERHEAD + found.compiling + training + float(evaluations) * found.evaluation

    choices = [half / 2 for half in range(2, 400)]
    most = max(choices, key=lambda epochs: (seconds(epochs) <= 60 * job["minutes"]) * epochs)
    return config.override({"train.epochs": most})


def main() -> None:
    """Runs the jobs that are not in the results yet, one on each core, and prints all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder with train, validation and test")
    parser.add_argument("--compare", choices=sorted(METHODS), default="scratch")
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--weights", help="finetune: folder of the run whose weights are the start")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 15.0], help="of one core")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cores", type=int, nargs="+", default=[0], help="cores to use, one run on each")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("own_photos.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(train_here(json.loads(options.job))))
        end_process(0)  # else Python waits a minute for iterators of TensorFlow
        return
    if not options.photos or (options.compare == "finetune" and not options.weights):
        parser.error("give --photos DIR, and with --compare finetune also --weights RUN")
    with tempfile.TemporaryDirectory() as scratch:
        shared = {"photos": options.photos, "weights": options.weights, "h5": f"{scratch}/weights.h5", "network": None}
        if options.compare == "finetune":
            shared["network"] = write_h5(options.weights, pathlib.Path(shared["h5"]))
        names = options.methods or METHODS[options.compare]
        plan = itertools.product(options.minutes, options.seeds, names)
        jobs = [{"compare": options.compare, "minutes": m, "seed": s, "method": name} for m, s, name in plan]
        done = [_key(row) for row in _rows(options.results)]

        def run(job: dict[str, Any], core: int) -> None:
            folder = f"{scratch}/{job['method']}-{job['minutes']}-{job['seed']}"
            text = json.dumps({**shared, **job, "core": core, "model_dir": folder})
            line = subprocess.run(
                [sys.executable, __file__, "--job", text], check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
            row = {key: value for key, value in json.loads(line).items() if key not in (*shared, "model_dir", "core")}
            row["network"] = json.loads(line)["network"]
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

        run_on_cores([job for job in jobs if _key(job) not in done], options.cores, run)
    _print_table([row for row in _rows(options.results) if row["compare"] == options.compare])


def _key(job: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(job[name] for name in ("compare", "minutes", "seed", "method"))


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _print_table(rows: list[dict[str, Any]]) -> None:
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["minutes"], row["method"]].append(row)
    print(f"{'minutes':>7}  {'method':<12} {'runs':>4} {'used':>5} {'epochs':>6}  {'validation':<14} {'test':<14} EMA")
    for (minutes, method), runs in sorted(groups.items()):
        used = statistics.mean(row["seconds"] for row in runs) / 60
        epochs = statistics.mean(row["epochs"] for row in runs)
        figures = [_mean(runs, name) for name in ("validation", "test", "test_ema")]
        print(
            f"{minutes:>7g}  {method:<12} {len(runs):>4} {used:>5.1f} {epochs:>6.1f}  "
            f"{figures[0]:<14} {figures[1]:<14} {figures[2]}"
        )


def _mean(runs: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in runs if name in row]
    if not values:
        return "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
