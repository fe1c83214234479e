"""Whole runs on disks that fail: after a resume, the result is the same, bit for bit."""

import functools
import json
import re
import shutil
import signal
import subprocess

import pytest

from effnetv2_keras.runs.checkpoints import Checkpoints
from effnetv2_keras.runs.run_folder import RunFolderError
from effnetv2_keras.runs.trained import load_trained
from tests.filesystems import environment, python, run_in_tmpfs
from tests.runs.test_checkpoints import DATA, garble, names, truncate
from tests.short_runs import ONE_STAGE, tiny_config, train_tiny
from tests.training.test_loop import array_splits, assert_equal_runs, stop_at


def train_arrays(run):
    return train_tiny(tiny_config(ONE_STAGE), run, splits=array_splits())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, and the files of a crash in step 10: checkpoints 4, 6 and 8, the best at 6."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 10, functools.partial(shutil.copytree, root / "whole", root / "crashed"))
        train_arrays(root / "whole")
    return root


@pytest.mark.slow
def test_a_run_resumes_from_the_newest_intact_checkpoint(runs, tmp_path, caplog):
    """Loading the best network reports the damage; the resumed run gives the same result."""
    run = tmp_path / "run"
    shutil.copytree(runs / "crashed", run)
    truncate(run / "checkpoints" / f"ckpt-8{DATA}")
    truncate(run / "best" / f"ckpt-6{DATA}")
    garble(run / "checkpoints" / "checkpoint")
    before = names(run / "checkpoints")
    with pytest.raises(RunFolderError, match="The best checkpoint of .* cannot be read: .*--weights=latest"):
        load_trained(run)
    assert load_trained(run, which="latest").step == 6
    assert re.search("damaged: .*ckpt-8: .* Using .*ckpt-6 instead", caplog.text)
    assert names(run / "checkpoints") == before
    train_arrays(run)
    assert_equal_runs(runs / "whole", run)
    assert load_trained(run).step == 12


@pytest.mark.slow
def test_a_run_killed_before_its_second_save_keeps_its_best(runs, tmp_path, monkeypatch):
    """After the last evaluation, between the best checkpoint and the latest."""
    run = tmp_path / "run"
    shutil.copytree(runs / "crashed", run)
    (run / "best" / "best.json").write_text('{"metric": "top1_ema", "value": -1, "step": 6}')
    calls = []

    def dies_second(method):
        def call(self, *arguments, **settings):
            calls.append(method)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return method(self, *arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        for name in ("save", "save_if_best"):
            patch.setattr(Checkpoints, name, dies_second(getattr(Checkpoints, name)))
        with pytest.raises(KeyboardInterrupt):
            train_arrays(run)
    train_arrays(run)
    assert_equal_runs(runs / "whole", run)
    assert json.loads((run / "best" / "best.json").read_text())["step"] == 12


def test_a_run_killed_between_two_renames_resumes(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "crashed", run)
    shutil.rmtree(run / "best")
    for path in (run / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    script = """
from tests.runs.test_disk import train_arrays
replace = os.replace
def die(source, target):
    if str(target).endswith("checkpoints/ckpt-8.index"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = die
train_arrays(folder)
"""
    died = subprocess.run(python(script, run), env=environment(), capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr[-3000:]
    assert {".writing-8", f"ckpt-8{DATA}", "ckpt-6.index"} <= set(names(run / "checkpoints"))
    assert load_trained(run).step == 6
    train_arrays(run)
    assert_equal_runs(runs / "whole", run)
    assert not [name for name in (*names(run), *names(run / "checkpoints")) if name.startswith(".")]


@pytest.mark.slow
def test_a_run_on_a_full_disk_resumes_when_there_is_space(runs, tmp_path):
    script = """
from effnetv2_keras.runs.disk import NoRoomError
from effnetv2_keras.training.steps import TrainStep
from tests.runs.test_checkpoints import names
from tests.runs.test_disk import train_arrays
run, filler, call, count = folder / "run", folder / "filler", TrainStep.__call__, []
def fill(self, *arguments):
    count.append(1)
    if len(count) == 7:
        filler.write_bytes(bytes(shutil.disk_usage(folder).free - 30_000))
    return call(self, *arguments)
TrainStep.__call__ = fill
try:
    train_arrays(run)
except NoRoomError as error:
    print(error)
print([name for name in names(run / "checkpoints") if name.endswith("index") or name.startswith(".")])
filler.unlink()
train_arrays(run)
shutil.copytree(run, folder.with_name("copy"))
"""
    error, kept = run_in_tmpfs(script, tmp_path / "mounted", size="3m").splitlines()
    assert "0.1 MB are needed (0.1 MB each) and 0." in error
    assert "are free. The run is saved at step 6. Free disk space or lower runtime.keep_checkpoint_max" in error
    assert kept == "['ckpt-0.index', 'ckpt-4.index', 'ckpt-6.index']"
    assert_equal_runs(runs / "whole", tmp_path / "copy")
