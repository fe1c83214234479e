"""Writes a network in every format, or reads those of another environment: ``exchange.py write|read FOLDER``.

The last line of the output is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import warnings
from typing import Callable

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from effnetv2_keras import Config, build_model, load_trained, load_weights
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.export import export_model
from effnetv2_keras.runs.trained import Trained
from tests.data.test_pipeline import array_source
from tests.models.filling import fill_at_random
from tests.short_runs import UNCHANGED, tiny_config, train_tiny
from tests.tiny import TINY

IMAGES = np.random.default_rng(0).integers(0, 256, [2, 33, 40, 3]).astype(np.float32)
CLASSES = ("a", "b", "c")
TOLERANCE, HALF_TOLERANCE, TRAINING_TOLERANCE = 1e-5, 2e-2, 1e-3
LOGITS, HALF_LOGITS, LAST_LOSS = "logits.npy", "logits_16.npy", "last_loss.json"


def tiny() -> tf.keras.Model:
    return build_model(TINY, num_classes=len(CLASSES))


def logits_of(model: Callable[[np.ndarray], tf.Tensor]) -> np.ndarray:
    return np.asarray(model(IMAGES))


def splits() -> Splits:
    return Splits(array_source(24), array_source(24))


def train(folder: pathlib.Path) -> float:
    """Trains the run in a folder to its end, or resumes it; returns the last training loss."""
    train_tiny(tiny_config(UNCHANGED), folder, splits=splits())
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["kind"] == "train"][-1]


def write(folder: pathlib.Path) -> None:
    model = tiny()
    fill_at_random(model)
    np.save(folder / LOGITS, logits_of(model))
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    tf.train.Checkpoint(model=model).save(str(folder / "checkpoint" / "ckpt"))
    trained = Trained(model, Config().with_network(TINY), CLASSES, 1)
    export_model(trained, folder / "saved_model", format_name="savedmodel", image_size=40)
    export_model(trained, folder / "keras", format_name="keras", image_size=40)
    half = build_model(TINY, num_classes=len(CLASSES), dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    config = Config().override({"precision.policy": "mixed_bfloat16"})
    half_trained = dataclasses.replace(trained, model=half, config=config)
    export_model(half_trained, folder / "keras_16", format_name="keras", image_size=40)
    np.save(folder / HALF_LOGITS, logits_of(half))
    run = folder / "run"
    loss = train(run)
    for file in (run / "checkpoints").glob("ckpt-12*"):
        file.unlink()
    (folder / LAST_LOSS).write_text(json.dumps(loss))
    np.save(folder / "run_logits.npy", logits_of(load_trained(run, which="best").model))


def differ_by(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def with_weights_of(path: pathlib.Path) -> tf.keras.Model:
    model = tiny()
    load_weights(model, path)
    return model


def goes_on(folder: pathlib.Path) -> float:
    expected = json.loads((folder / LAST_LOSS).read_text())
    return abs(train(folder / "run") / expected - 1)


def compare(load: Callable[[], Callable[[np.ndarray], tf.Tensor]], logits: pathlib.Path) -> Callable[[], float]:
    return lambda: differ_by(logits_of(load()), np.load(logits))


def read(folder: pathlib.Path) -> dict[str, str]:
    """Returns the outcome of each way to read: ``"yes"``, the difference, or the error."""
    logits = folder / LOGITS
    ways: dict[str, tuple[Callable[[], float], float]] = {
        "`load_model(\"model.keras\")`": (
            compare(lambda: tf.keras.models.load_model(folder / "model.keras", compile=False), logits), TOLERANCE),
        "`load_model` of a `--format=keras` export": (
            compare(lambda: tf.keras.models.load_model(folder / "keras" / "model.keras"), logits), TOLERANCE),
        "the same with `mixed_bfloat16`": (
            compare(lambda: tf.keras.models.load_model(folder / "keras_16" / "model.keras"), folder / HALF_LOGITS),
            HALF_TOLERANCE),
        "`load_weights(model, \"model.keras\")`": (
            compare(lambda: with_weights_of(folder / "model.keras"), logits), TOLERANCE),
        "`load_weights(model, \"model.weights.h5\")`": (
            compare(lambda: with_weights_of(folder / "model.weights.h5"), logits), TOLERANCE),
        "`load_weights(model, \"model.h5\")`": (
            compare(lambda: with_weights_of(folder / "model.h5"), logits), TOLERANCE),
        "`load_weights(model, \"checkpoint\")`": (
            compare(lambda: with_weights_of(folder / "checkpoint"), logits), TOLERANCE),
        "`tf.saved_model.load(\"saved_model\")`": (
            compare(lambda: serve(folder / "saved_model"), logits), TOLERANCE),
    }  # fmt: skip
    if (folder / "run").exists():
        run_logits = folder / "run_logits.npy"
        ways["`load_trained(\"run\")`"] = (
            compare(lambda: load_trained(folder / "run").model, run_logits), TOLERANCE)  # fmt: skip
        ways["`--mode=train --model_dir=run` resumes the run"] = (lambda: goes_on(folder), TRAINING_TOLERANCE)
    return {name: _outcome(*way) for name, way in ways.items()}


def serve(folder: pathlib.Path) -> Callable[[np.ndarray], tf.Tensor]:
    loaded = tf.saved_model.load(str(folder))
    return lambda images: [loaded, loaded.serving_default(tf.constant(images))["logits"]][1]


def _outcome(difference: Callable[[], float], tolerance: float) -> str:
    try:
        found = difference()
    except Exception as error:  # any error is a valid outcome
        return f"{type(error).__name__}: {error}"
    return "yes" if found <= tolerance else f"differs by {found:.1e}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, where = sys.argv[1], pathlib.Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"write": write, "read": read}[what](where)))
