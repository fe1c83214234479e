"""Measures what small images save: the processor time of the stages of a small network on photographs, on one core.

The stages have images of 48, 64, 80 and 96 px, as in ``benchmarks/claims``. Training reads the photographs themselves
or small copies of them (``data.cache``). The measurements take turns. Prints, for each stage, the milliseconds per
image of the input alone and of training with its input, and the images/s; then the images/s of the first stage as a
multiple of those of the last.

    PYTHONPATH=. python benchmarks/small_stages.py --data_dir DIR

``DIR`` holds ``train/CLASS`` and ``validation/CLASS``, or class folders. Without it, photographs of 500 x 375 px are
made.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.claims import harness
from benchmarks.one_core import use_core
from effnetv2_keras.config import Facts

CACHES = ("none", "auto")


def milliseconds(do: Callable[[], object], times: int, images: int) -> float:
    """Returns the processor time of doing something so many times, per image."""
    start = time.process_time()
    for _ in range(times):
        do()
    return (time.process_time() - start) / times / images * 1000


def measure(step: Any, batches: Any, steps: int, images: int) -> dict[str, float]:
    """Returns the milliseconds per image of the input alone and of training with its input."""
    step(next(batches))
    return {
        "input": milliseconds(lambda: next(batches), steps, images),
        "training": milliseconds(lambda: float(step(next(batches))["loss"]), steps, images),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="folder of photographs")
    parser.add_argument("--core", type=int, default=0, help="number of the core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of each measurement")
    options = parser.parse_args()
    use_core(options.core)
    from benchmarks.photos import write_photos
    from effnetv2_keras.data.small_copies import with_small_copies
    from effnetv2_keras.data.splits import Splits, open_splits, shorter_side
    from effnetv2_keras.distribution.strategy import make_strategy
    from effnetv2_keras.training.input import RunInput
    from effnetv2_keras.training.state import create_state
    from effnetv2_keras.training.steps import TrainStep, reuse

    with tempfile.TemporaryDirectory() as made:
        folder = options.data_dir or str(write_photos(pathlib.Path(made)))
        splits = open_splits(harness.base_config(folder, Facts(100, None, None), 60).data)
        facts = Facts(splits.train.num_examples, shorter_side(splits.train), None)
        base = harness.base_config(folder, facts, 60)
        strategy, batch = make_strategy("cpu"), base.train.batch_size
        stages = base.plan(base.total_steps(facts.num_train))
        state = create_state(
            base, strategy, num_classes=len(splits.train.class_names), steps_per_epoch=100, total_steps=10**6
        )
        step = TrainStep(state, strategy, config=base, stage=stages[0])
        rows = []
        for cache in CACHES * (options.rounds + 1):
            source = with_small_copies(splits.train, base.override({"data.cache": cache}))
            with RunInput(base, Splits(source, splits.evaluation), strategy) as data:
                for stage in stages:
                    reuse([step], stage)
                    row = measure(step, data.batches(stage, stage.first_step), options.steps, batch)
                    rows.append({"cache": cache, "size": stage.image_size, **row})
    rows = rows[len(CACHES) * len(stages) :]  # the first round includes tracing
    for cache in CACHES:
        own = [row for row in rows if row["cache"] == cache]
        training = []
        for stage in stages:
            read, trained = (
                statistics.median(row[name] for row in own if row["size"] == stage.image_size)
                for name in ("input", "training")
            )
            training.append(trained)
            print(
                f"data.cache={cache}, {stage.image_size} px: input {read:.2f} ms, training {trained:.2f} ms, "
                f"{1000 / trained:.0f} images/s"
            )
        print(f"data.cache={cache}: first stage {training[-1] / training[0]:.2f} times the images/s of the last")
    print(json.dumps({"rows": rows, **vars(options)}))


if __name__ == "__main__":
    main()
