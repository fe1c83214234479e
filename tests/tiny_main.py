"""The command line with a tiny network as an additional model: ``python -m tests.tiny_main --model_name=tiny ...``.

If the environment variable KILL is set, such as to ``evaluation:SIGTERM``, the process gets the signal at the named
moment.
"""

from __future__ import annotations

import os
import signal
import time

import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow
from effnetv2_keras.architecture import variants
from tests.tiny import SMALL

STARTS = ("listing", "tracing")
MOMENTS = ("warm_up", "mid_stage", "checkpoint", "border", "evaluation")


def _kill_at(moment: str, number: signal.Signals) -> None:
    import tensorflow as tf

    from effnetv2_keras.training.evaluation import Evaluator
    from effnetv2_keras.training.steps import TrainStep

    calls = {"step": 0, "write": 0, "evaluation": 0}

    def die_in(owner, method, what, count, *, after):
        original = getattr(owner, method)

        def dying(self, *arguments, **keywords):
            calls[what] += 1
            result = original(self, *arguments, **keywords) if after else None
            if calls[what] == count:
                os.kill(os.getpid(), number)
            return result if after else original(self, *arguments, **keywords)

        setattr(owner, method, dying)

    if moment == "warm_up":
        die_in(TrainStep, "__call__", "step", 2, after=False)
    elif moment == "mid_stage":
        die_in(TrainStep, "__call__", "step", 5, after=False)
    elif moment == "border":
        die_in(TrainStep, "__call__", "step", 6, after=True)
    elif moment == "checkpoint":  # the third write, which follows those of steps 0 and 4: before its files are renamed
        die_in(tf.train.Checkpoint, "write", "write", 3, after=True)
    else:
        die_in(Evaluator, "_step", "evaluation", 1, after=True)  # during tracing, before the first result


def _sleep_at(moment: str, number: signal.Signals) -> None:
    """Sends the signal while images are listed or a step is traced, which then never ends by itself."""
    from effnetv2_keras.data import splits
    from effnetv2_keras.training.steps import TrainStep

    def sleeping(*arguments, **keywords):
        os.kill(os.getpid(), number)
        time.sleep(100)

    if moment == "listing":
        splits.SOURCES["folder"] = sleeping
    else:
        TrainStep.__call__ = sleeping


if __name__ == "__main__":
    variants.MODELS["tiny"] = SMALL
    moment, _, name = os.environ.pop("KILL", "").partition(":")
    if moment:
        (_sleep_at if moment in STARTS else _kill_at)(moment, signal.Signals[name])
    from effnetv2_keras.cli import run

    run()
