"""Measures whether the step times of the search rank networks the same way in two measurements.

Takes eight fixed networks of the search space around EfficientNetV2-B0. For each, measures the training step time
relative to that of the backbone, as trials do, twice, in two orders. Prints both values, Kendall's tau between the two
measurements, and Kendall's tau between the first measurement and the number of multiply-adds.

    PYTHONPATH=. python benchmarks/step_time_ranks.py
"""

from __future__ import annotations

import argparse
import json
import random

import scipy.stats

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
import hparams
from effnetv2_keras.architecture import profile
from effnetv2_keras.distribution.strategy import make_strategy
from effnetv2_keras.search.runner import short_training
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.step_time import Stopwatch

NUM_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_cfg", default="demo")
    parser.add_argument("--model_name", default="efficientnetv2-b0", help="the backbone")
    parser.add_argument("--networks", type=int, default=8)
    arguments = parser.parse_args()
    config = short_training(hparams.load(arguments.dataset_cfg, arguments.model_name))
    space, generator, size = SearchSpace(config.spec, config.search), random.Random(0), config.eval_size
    points = [{name: generator.choice(choices) for name, choices in space.decisions.items()} for _ in range(10_000)]
    networks, limit = [], (config.search.max_parameters or float("inf")) * 1e6
    for point in points:
        spec = space.spec(point)
        if profile.count_parameters(spec, num_classes=NUM_CLASSES).trainable <= limit:
            networks.append(spec)
        if len(networks) == arguments.networks:
            break
    stopwatch = Stopwatch(config, space.backbone, make_strategy("auto"), num_classes=NUM_CLASSES)
    times: list[dict[str, float]] = [{}, {}]
    for measured, order in zip(times, (networks, networks[::-1])):
        for spec in order:
            measured[spec.name] = stopwatch.relative_time(spec, steps=config.search.timing_steps)
    first, second = ([measured[spec.name] for spec in networks] for measured in times)
    macs = [profile.count_macs(spec, image_size=size, num_classes=NUM_CLASSES) / 1e6 for spec in networks]
    for spec, one, two, count in zip(networks, first, second, macs):
        print(f"{spec.name}: {one:.3f} and {two:.3f} times the step of the backbone, {count:.1f} M multiply-adds")
    tau, of_macs = (float(scipy.stats.kendalltau(first, other).statistic) for other in (second, macs))
    print(f"Kendall's tau: {tau:.3f} between the measurements; {of_macs:.3f} between the first and the multiply-adds")
    print(json.dumps({"tau": tau, "tau_macs": of_macs, "first": first, "second": second, "macs_millions": macs}))


if __name__ == "__main__":
    main()
