"""``--mode=train``: trains a network, or resumes the run in ``--model_dir``."""

from __future__ import annotations

from effnetv2_keras.distribution.rejoin import restart
from effnetv2_keras.errors import WorkerLost
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.training import loop


def run(invocation: Invocation) -> None:
    """Trains; if another worker is lost and ``--rejoin`` is on, restarts this process to wait for it."""
    try:
        loop.train(
            invocation.config(), invocation.model_dir(), strategy=invocation.strategy(), console=invocation.console
        )
    except WorkerLost as loss:
        if not invocation.options.rejoin:
            raise
        restart(loss)
