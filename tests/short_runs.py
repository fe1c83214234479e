"""Short real training runs for the tests."""

from __future__ import annotations

import io

import rich.console

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import parse_overrides
from effnetv2_keras.training.loop import train
from tests.tiny import SMALL

SETTINGS = (
    "progressive.image_size.start=16,progressive.image_size.end=24,progressive.stages=2,"
    "progressive.randaug_magnitude.start=5,progressive.randaug_magnitude.end=10,progressive.mixup_alpha.end=0.2,"
    "train.epochs=4,train.batch_size=8,train.optimizer=rmsprop,train.lr_base=0.2,train.lr_sched=cosine,"
    "train.lr_warmup_epoch=1,train.ema_decay=0.9,eval.batch_size=8,eval.isize=24,eval.every_epochs=2,"
    "runtime.log_every=3,runtime.checkpoint_every=4,runtime.tensorboard=false,runtime.preflight=false"
)


def tiny_config(changes="", **data):
    """A run of 12 steps in two stages on 24 training images."""
    config = Config().override(parse_overrides(SETTINGS))
    return config.override({**{f"data.{key}": value for key, value in data.items()}, **parse_overrides(changes)})


def train_tiny(config, model_dir, *, spec=SMALL, output=None, **arguments):
    """Trains a tiny network; what the console shows goes to ``output``."""
    console = rich.console.Console(file=output or io.StringIO(), width=200)
    return train(config.with_network(spec), model_dir, console=console, **arguments)
