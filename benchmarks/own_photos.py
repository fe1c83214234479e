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
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

METHODS = {
    "scratch": ("folder", "one-size", "keras-fit"),
    "finetune": ("finetune", "finetune-h5", "folder", "keras-guide"),
}
_HEAD_SHARE = 0.4
_OVERHEAD = 25.0
"""Seconds that a run of this package takes besides: the check of the files, and its report."""


def train_here(job: dict[str, Any]) -> dict[str, Any]:
    """Trains in this process, as a job says, and returns its figures."""
    os.sched_setaffinity(0, {job["core"]})
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    train: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"keras-fit": _keras_fit, "keras-guide": _guide}
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


def _keras_fit(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    layers, size = tf.keras.layers, 64 if job["minutes"] < 10 else 96
    data = {split: _images(job["photos"], split, size) for split in ("train", "validation", "test")}
    tf.keras.utils.set_random_seed(job["seed"])
    classes = len(data["train"].class_names)
    augment = [layers.RandomFlip("horizontal"), layers.RandomTranslation(0.15, 0.15)]
    own = {"weights": None, "classes": classes, "classifier_activation": None, "input_shape": [size, size, 3]}
    network = _keras_network(width=0.5, depth=1.0, **own)
    model = tf.keras.Sequential([layers.Input([size, size, 3]), *augment, network])
    epochs = _epochs_in(60 * job["minutes"], model, data, _compiled(model, tf.keras.optimizers.AdamW(1e-6)))
    rate = tf.keras.optimizers.schedules.CosineDecay(0.003, epochs * len(data["train"]))
    tf.keras.utils.set_random_seed(job["seed"])
    model.set_weights(tf.keras.models.clone_model(model).get_weights())
    _compiled(model, tf.keras.optimizers.AdamW(rate))
    start = time.process_time()
    best = _fit(model, data, epochs)
    return {**best, "seconds": time.process_time() - start, "epochs": epochs, "network": "B0, half width"}


def _guide(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    layers, size = tf.keras.layers, 96
    data = {split: _images(job["photos"], split, size) for split in ("train", "validation", "test")}
    tf.keras.utils.set_random_seed(job["seed"])
    base = _keras_network(width=0.5, depth=0.5, weights=None, include_top=False, pooling="avg")
    base.load_weights(job["h5"], by_name=True)
    inputs = tf.keras.Input([size, size, 3])
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = layers.Dropout(0.2)(base(x, training=False))
    model = tf.keras.Model(inputs, layers.Dense(len(data["train"].class_names))(x))
    seconds, initial, best, epochs = 0.0, model.get_weights(), {}, []
    for trainable, rate, share in ((False, 1e-3, _HEAD_SHARE), (True, 1e-5, 1 - _HEAD_SHARE)):
        base.trainable = trainable
        before = model.get_weights()
        compiled = _compiled(model, tf.keras.optimizers.Adam(rate))
        count = _epochs_in(60 * job["minutes"] * share, model, data, compiled)
        model.set_weights(before if epochs else initial)
        _compiled(model, tf.keras.optimizers.Adam(rate))
        start = time.process_time()
        best = _fit(model, data, count)
        seconds += time.process_time() - start
        epochs.append(count)
    return {**best, "seconds": seconds, "epochs": sum(epochs), "network": job["network"]}


def _keras_network(*, width: float, depth: float, **settings: Any) -> Any:
    import tensorflow as tf

    keras = sys.modules[tf.keras.applications.EfficientNetV2B0.__module__]
    shape = {"width_coefficient": width, "depth_coefficient": depth, "default_size": 224}
    return keras.EfficientNetV2(**shape, model_name="efficientnetv2-b0", **settings)


def _images(photos: str, split: str, size: int) -> Any:
    import tensorflow as tf

    return tf.keras.utils.image_dataset_from_directory(
        f"{photos}/{split}", image_size=(size, size), batch_size=32, shuffle=split == "train", seed=0
    )


def _compiled(model: Any, optimizer: Any) -> Any:
    import tensorflow as tf

    model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    return model


def _epochs_in(seconds: float, model: Any, data: dict[str, Any], compiled: Any) -> int:
    """Returns the number of epochs, each with its evaluation, that fit into a processor time."""
    del compiled
    train = data["train"]
    start = time.process_time()
    model.fit(train.take(2), verbose=0)
    model.evaluate(data["validation"], verbose=0)
    first = time.process_time() - start
    start = time.process_time()
    model.fit(train.take(12), verbose=0)
    step = (time.process_time() - start) / 12
    start = time.process_time()
    model.evaluate(data["validation"], verbose=0)
    evaluation = time.process_time() - start
    return max(1, int((seconds - first) / (step * len(train) + evaluation)))


def _fit(model: Any, data: dict[str, Any], epochs: int) -> dict[str, float]:
    import tensorflow as tf

    keep_best = tf.keras.callbacks.EarlyStopping(
        "val_accuracy", patience=epochs, mode="max", restore_best_weights=True, start_from_epoch=0
    )
    model.fit(data["train"], validation_data=data["validation"], epochs=epochs, callbacks=[keep_best], verbose=0)
    return {split: model.evaluate(data[split], verbose=0)[1] for split in ("validation", "test")}


def write_h5(run: str, path: pathlib.Path) -> str:
    """Writes the averaged weights of a run of a network without top in Keras' layout; returns the network's name.

    Which variable of Keras becomes which of ours is found by loading a file whose variables hold their own numbers.
    """
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import numpy as np

    from effnetv2_keras import build_model
    from effnetv2_keras.runs.trained import load_trained
    from effnetv2_keras.weights import load_weights

    trained = load_trained(run)
    theirs = _keras_network(width=0.5, depth=0.5, weights=None, include_top=False, pooling="avg")
    theirs.set_weights([np.full(weight.shape, number) for number, weight in enumerate(theirs.weights)])
    theirs.save_weights(path)
    ours = build_model(trained.spec, include_top=False, pooling="avg")
    load_weights(ours, str(path))
    values = theirs.get_weights()
    learned = trained.model.get_weights()
    for weight, value in zip(ours.get_weights(), learned):
        values[int(weight.flat[0])] = value.reshape(values[int(weight.flat[0])].shape)
    theirs.set_weights(values)
    theirs.save_weights(path)
    return trained.spec.name


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
        return
    with tempfile.TemporaryDirectory() as scratch:
        shared = {"photos": options.photos, "weights": options.weights, "h5": f"{scratch}/weights.h5", "network": None}
        if options.compare == "finetune":
            shared["network"] = write_h5(options.weights, pathlib.Path(shared["h5"]))
        names = options.methods or METHODS[options.compare]
        plan = itertools.product(options.minutes, options.seeds, names)
        jobs = [{"compare": options.compare, "minutes": m, "seed": s, "method": name} for m, s, name in plan]
        done = [_key(row) for row in _rows(options.results)]
        cores = list(options.cores)

        def run(job: dict[str, Any]) -> None:
            core = cores.pop()
            folder = f"{scratch}/{job['method']}-{job['minutes']}-{job['seed']}"
            text = json.dumps({**shared, **job, "core": core, "model_dir": folder})
            line = subprocess.run(
                [sys.executable, __file__, "--job", text], check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
            cores.append(core)
            row = {key: value for key, value in json.loads(line).items() if key not in (*shared, "model_dir", "core")}
            row["network"] = json.loads(line)["network"]
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

        with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
            list(pool.map(run, [job for job in jobs if _key(job) not in done]))
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
