from __future__ import annotations

import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from effnetv2_keras import cli
from effnetv2_keras.distribution import rejoin
from effnetv2_keras.errors import UsageError, WorkerLost
from effnetv2_keras.modes import train
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.modes.options import Options
from tests.short_runs import tiny_config

LOSS = WorkerLost("Another of the 2 workers is gone.")


def lose(*_, **__):
    raise LOSS


@pytest.fixture
def started(monkeypatch):
    """The commands that replaced this process, which goes on."""
    commands = []
    monkeypatch.setenv(rejoin._RESTARTS, "0")
    monkeypatch.setattr(rejoin, "_STARTED", time.monotonic())  # the tests before may have taken longer than a long life
    monkeypatch.setattr(rejoin.os, "execv", lambda *command: commands.append(command))
    return commands


def test_a_worker_starts_again_after_a_loss_but_not_for_ever(started):
    for _ in range(5):
        rejoin.restart(LOSS)
    with pytest.raises(UsageError, match="restarted 5 times in a row, each time within ten minutes"):
        rejoin.restart(LOSS)
    assert len(started) == 5
    assert started[0][0] == sys.executable


def test_a_worker_that_lived_long_counts_its_losses_anew(started, monkeypatch):
    monkeypatch.setenv(rejoin._RESTARTS, "5")
    monkeypatch.setattr(rejoin, "_STARTED", time.monotonic() - rejoin._LONG_LIFE - 1)
    rejoin.restart(LOSS)
    assert len(started) == 1
    assert rejoin.os.environ[rejoin._RESTARTS] == "1"


def test_training_restarts_unless_told_not_to(started, monkeypatch, tmp_path):
    monkeypatch.setattr(train.loop, "train", lose)
    for rejoins in (True, False):
        options = Options(rejoin=rejoins, model_dir=str(tmp_path), strategy="cpu")
        invocation = Invocation(options, None, (), lambda *_: tiny_config())
        if rejoins:
            train.run(invocation)
        else:
            with pytest.raises(WorkerLost):
                train.run(invocation)
    assert len(started) == 1


def test_a_lost_worker_ends_with_the_status_of_an_interruption(monkeypatch):
    monkeypatch.setattr("effnetv2_keras.modes.plan.run", lose)
    with flagsaver.flagsaver():
        flags.FLAGS(["main.py", "--mode=plan"])
        with pytest.raises(SystemExit, match=str(cli.EXIT_INTERRUPTED)):
            cli.main(["main.py"])
