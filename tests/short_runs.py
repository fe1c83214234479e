"""Short training runs for the tests."""

from __future__ import annotations

import contextlib
import io
from unittest import mock

import rich.console

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.reporting import plots, recorder
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.training.loop import train
from tests.tiny import SMALL

SETTINGS = (
    "model.classifier_init=reference,"  # so that numbers differ more than by rounding
    "progressive.image_size.start=16,progressive.image_size.end=24,progressive.stages=2,"
    "progressive.randaug_magnitude.start=5,progressive.randaug_magnitude.end=10,progressive.mixup_alpha.end=0.2,"
    "train.epochs=4,train.batch_size=8,train.optimizer=rmsprop,train.lr_base=0.2,train.lr_sched=cosine,"
    "train.lr_warmup_epoch=1,train.ema_decay=0.9,eval.batch_size=8,eval.isize=24,eval.every_epochs=2,"
    "runtime.log_every=3,runtime.checkpoint_every=4,runtime.tensorboard=false,runtime.preflight=false"
)


def tiny_config(changes="", **data):
    """Returns the configuration of a run of two stages, which has 12 steps with 24 training images."""
    config = Config().override(parse_overrides(SETTINGS))
    return config.override({**{f"data.{key}": value for key, value in data.items()}, **parse_overrides(changes)})


UNCHANGED = "data.augment=none"
"""Leaves out RandAugment, whose tracing takes a quarter of a run of two stages, where images are not what is tested."""
ONE_STAGE = f"{UNCHANGED},progressive.stages=1"
"""What takes half the time, where stages are not what is tested either."""


@contextlib.contextmanager
def undrawn():
    """Leaves out the plot and the report at the end of a run, which take a fifth of the time of a short one."""
    with mock.patch.object(plots, "plot_training"), mock.patch.object(recorder, "write_report"):
        yield


def train_tiny(config, model_dir, *, spec=SMALL, output=None, draw=False, **arguments):
    """Trains a tiny network, with the console output going to ``output``; draws plot and report only with ``draw``."""
    console = rich.console.Console(file=output or io.StringIO(), width=200)
    with contextlib.nullcontext() if draw else undrawn():
        return train(config.with_network(spec), model_dir, console=console, **arguments)


MEASURED = ("seconds", "processor_seconds", "images_per_second", "compile_seconds", "input_wait", "memory_mb")
"""Columns of the metrics that differ between equal runs."""


def computed_rows(folder):
    """Returns the rows of a run's metrics without the columns that differ between equal runs."""
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in RunFolder(folder).metrics()]
