"""Golden values that every environment must reproduce; ``python -m tests.environments.goldens`` writes them again.

The files were written with TensorFlow 2.15.1, Python 3.11.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

# isort: split
import numpy as np
import PIL.Image
import tensorflow as tf

import hparams
from effnetv2_keras import build_model
from effnetv2_keras.data.pipeline import InputPlan, single_replica, train_input
from effnetv2_keras.data.sources.base import FileSource, Source
from effnetv2_keras.data.splits import Splits, open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from tests.data.test_pipeline import array_source
from tests.models.filling import fill_by_hash
from tests.short_runs import tiny_config, train_tiny
from tests.tiny import TINY

FOLDER = pathlib.Path(__file__).with_name("goldens")
COMMAND = "PYTHONPATH=. python -m tests.environments.goldens"
NETWORKS = {"tiny": TINY, "efficientnetv2-b0": "efficientnetv2-b0", "efficientnet-b0": "efficientnet-b0"}
PLANS = [(name, data) for name in ("efficientnetv2-b0", "efficientnetv2-s") for data in ("demo", "imagenet", "folder")]


def logits(name: str) -> np.ndarray:
    """Returns the logits of two images, ``[2, classes]``, with weights from ``fill_by_hash``."""
    model = build_model(NETWORKS[name], num_classes=10)
    fill_by_hash(model)
    return model(np.random.default_rng(0).integers(0, 256, [2, 75, 64, 3]).astype(np.float32)).numpy()


def plan(name: str, data: str) -> list[dict[str, Any]]:
    """Returns the stages of a recipe."""
    stages = [dataclasses.asdict(stage) for stage in hparams.load(data, name).plan(1000)]
    return [{key: value for key, value in stage.items() if key != "trains"} for stage in stages]


def photos(folder: pathlib.Path) -> Source:
    """Writes a hundred JPEG files of 50 x 60 px with smooth colors, and returns them as a source."""
    numbers, paths = np.random.default_rng(0), []
    for index in range(100):
        blocks = numbers.integers(0, 256, [6, 5, 3], dtype=np.uint8)
        paths.append(folder / f"{index:03}.jpg")
        PIL.Image.fromarray(blocks).resize((50, 60), PIL.Image.Resampling.BICUBIC).save(paths[-1], quality=95)
    return FileSource([str(path) for path in paths], np.arange(100) % 5, tuple("abcde"))


def examples(source: Source, name: str) -> dict[str, np.ndarray]:
    """Returns the first hundred training images and labels, with strong augmentation."""
    config = hparams.load("demo" if name == "digits" else "imagenet", "efficientnetv2-s")
    data = config.data.model_copy(update={"ra_num_layers": 2})
    stage = config.plan(10)[0]
    alphas = {"mixup_alpha": 0.2, "cutmix_alpha": 0.5} if name == "photos" else {}
    stage = dataclasses.replace(stage, end_step=10, image_size=24, randaug_magnitude=15.0, **alphas)
    inputs = train_input(
        source, InputPlan(data, 50, None, UnreadableImages("error")), stage=stage, seed=3, first_step=0
    )
    batches = list(single_replica(inputs).take(2).as_numpy_iterator())
    return {key: np.concatenate([batch[key] for batch in batches]) for key in ("image", "label")}


def first_examples(name: str) -> dict[str, np.ndarray]:
    """Returns the first examples of the digits or of ``photos``."""
    with tempfile.TemporaryDirectory() as folder:
        digits = hparams.load("demo", "efficientnetv2-b0").data
        source = open_splits(digits).train if name == "digits" else photos(pathlib.Path(folder))
        return examples(source, name)


def losses() -> list[float]:
    """Returns the losses of ten steps of a short run with two stages."""
    config = tiny_config("runtime.log_every=1")
    with tempfile.TemporaryDirectory() as folder:
        train_tiny(config, pathlib.Path(folder) / "run", splits=Splits(array_source(24), array_source(24)))
        lines = (pathlib.Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"][:10]


def write() -> None:
    """Writes all golden files."""
    FOLDER.mkdir(exist_ok=True)
    numbers = {
        "tensorflow": tf.__version__,
        "logits": {name: logits(name).tolist() for name in NETWORKS},
        "plans": {f"{name} {data}": plan(name, data) for name, data in PLANS},
        "losses": losses(),
    }
    (FOLDER / "numbers.json").write_text(json.dumps(numbers, indent=1))
    for name in ("digits", "photos"):
        np.savez_compressed(FOLDER / f"{name}.npz", **first_examples(name))


if __name__ == "__main__":
    write()
