"""Compares inference of exported SavedModels: frozen, with variables, and ``tf.keras.applications`` by Keras' export.

Each round calls every SavedModel once, so that other work on the machine slows all alike. Prints the median time of a
call, and its ratio to that of ``tf.keras.applications``.

    PYTHONPATH=. python benchmarks/inference.py --batch_sizes 1 16 --size 224
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any, Callable

import tensorflow as tf

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from effnetv2_keras.config import Config
from effnetv2_keras.export import export_model
from effnetv2_keras.modes.benchmark import fresh


def served(folder: pathlib.Path) -> Callable[[tf.Tensor], Any]:
    """Returns a function that calls the signature ``serving_default`` of a SavedModel."""
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return lambda images: (loaded, next(iter(signature(**{name: images}).values())).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="efficientnetv2-b0")
    parser.add_argument("--peer", default="EfficientNetV2B0", help="the same network in tf.keras.applications")
    parser.add_argument("--size", type=int, default=224, help="image side, px")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    trained = fresh(Config().override({"model.model_name": arguments.model_name}))
    peer = getattr(tf.keras.applications, arguments.peer)(weights=None)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        export_model(trained, folder / "frozen")
        export_model(trained, folder / "variables", trainable=True)
        peer.export(str(folder / "keras"))
        calls = {kind: served(folder / kind) for kind in ("frozen", "variables", "keras")}
    for batch in arguments.batch_sizes:
        images = tf.random.uniform([batch, arguments.size, arguments.size, 3], maxval=255.0)
        seconds: dict[str, list[float]] = {kind: [] for kind in calls}
        for number in range(arguments.rounds + 2):
            for kind, call in calls.items():
                start = time.perf_counter()
                call(images)
                if number > 1:
                    seconds[kind].append(time.perf_counter() - start)
        medians = {kind: statistics.median(own) for kind, own in seconds.items()}
        for kind, median in medians.items():
            print(f"batch {batch}, {kind}: {1000 * median:.1f} ms, {median / medians['keras']:.2f} of Keras'")
        print(json.dumps({"batch": batch, "seconds": medians, "size": arguments.size, "model": arguments.model_name}))


if __name__ == "__main__":
    main()
