"""The folder of a run with other processes, missing permissions, full disks and crashes."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.runs import disk
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError, write_atomically
from tests.filesystems import environment, python, run_in_tmpfs
from tests.short_runs import tiny_config, train_tiny
from tests.training.test_loop import array_splits

_HOLD = """
from effnetv2_keras.runs.run_folder import RunFolder
with RunFolder(folder).lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path/run``."""
    with subprocess.Popen(
        python(_HOLD, tmp_path / "run"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    run = tmp_path / "run"
    message = rf"run is in use by process {holder.pid} on {socket.gethostname()}, since 20\d\d-.*stop it \(Ctrl-C"
    with pytest.raises(RunFolderError, match=message):
        train_tiny(tiny_config(), run, splits=array_splits())
    assert not (run / "config.yaml").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    RunFolder(run).check(tiny_config(), array_splits())  # the leftovers of the killed process do not count as content
    with RunFolder(run).lock():
        pass
    assert not list(run.iterdir())


def test_the_lock_leaves_nothing_behind(tmp_path):
    with RunFolder(tmp_path / "new").lock() as folder:
        assert folder.path.is_dir()
        with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()} on"), folder.lock():
            pass
        (folder / ".lock_holder.json").unlink()
        with pytest.raises(RunFolderError, match="in use by another process. Wait"), folder.lock():
            pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with RunFolder(tmp_path / "old").lock():
        pass
    assert not list((tmp_path / "old").iterdir())


def test_a_start_that_was_killed_leaves_the_folder_free(tmp_path):
    for name in ("data.json", ".config.yaml.123.partial", ".lock", ".lock_holder.json"):
        (tmp_path / name).write_text("")
    RunFolder(tmp_path).claim(tiny_config(), array_splits())
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "data.json", ".lock", ".lock_holder.json"}


def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    script = """
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from tests.short_runs import tiny_config
from tests.training.test_loop import array_splits
def attempt(action):
    try:
        action()
    except RunFolderError as error:
        print(error)
splits = array_splits()
RunFolder(folder / "old").claim(tiny_config(), splits)
remount("ro")
attempt(lambda: RunFolder(folder / "old").claim(tiny_config(), splits))
attempt(lambda: RunFolder(folder / "new").claim(tiny_config(), splits))
attempt(lambda: RunFolder(folder / "old").lock().__enter__())
attempt(lambda: RunFolder(folder / "new").lock().__enter__())
"""
    lines = run_in_tmpfs(script, tmp_path / "mounted", size="1m").splitlines()
    advice = (
        "cannot be written: Read-only file system. Give this user permission to write to the folder, or choose another"
    )
    assert [line.split("--")[0].strip() for line in lines] == [
        f"{tmp_path}/mounted/{name} {advice}" for name in ("old", "new", "old", "new")
    ]


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(disk.os, "replace", refuse)
    with pytest.raises(RunFolderError, match="run cannot be written: Permission denied. Give this user permission"):
        RunFolder(tmp_path / "run").claim(tiny_config(), array_splits())
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="cannot be a folder: it, or a part of its path, is a file"):
            RunFolder(path).claim(tiny_config(), array_splits())


def test_a_run_recognizes_its_images_wherever_they_are(tmp_path, caplog):
    photos, run = tmp_path / "photos", RunFolder(tmp_path / "run")
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for number in range(5):
            (photos / name / f"{number}.jpg").touch()

    def at(place, act=run.check, **settings):
        config = tiny_config().override({"data.source": "folder", "data.data_dir": str(place), **settings})
        act(config, open_splits(config.data))

    at(photos, run.claim)
    os.symlink(photos, tmp_path / "link")
    for place in (f"{photos}/", f"{tmp_path}/./photos", tmp_path / "link"):
        at(place)
    photos.rename(tmp_path / "moved")
    at(tmp_path / "moved", run.claim)
    assert run.config().data.data_dir == str(tmp_path / "moved")
    with pytest.raises(RunFolderError, match="train.epochs was .* and is now 9"):
        at(tmp_path / "moved", **{"train.epochs": 9})
    stored = json.loads((run / "data.json").read_text())
    moved = tmp_path / "moved" / "cat"
    (moved / "0.jpg").rename(moved / "new.jpg")
    with pytest.raises(
        RunFolderError, match=r"the checksum of the names and labels of the images was '\w+ \(in .*/moved"
    ):
        at(tmp_path / "moved")
    del stored["images"]  # as an earlier version writes it
    (run / "data.json").write_text(json.dumps(stored))
    (tmp_path / "moved").rename(tmp_path / "again")
    at(tmp_path / "again", run.claim)
    assert "written by an earlier version and has no checksum of the images" in caplog.text
    assert len(json.loads((run / "data.json").read_text())["images"]) == 2


def test_other_labels_of_the_same_list_are_other_data(tmp_path):
    run = RunFolder(tmp_path / "run")
    for number in range(6):
        (tmp_path / f"{number}.jpg").touch()

    def claim(labels):
        rows = [f"{number}.jpg,{label}" for number, label in enumerate(labels)]
        (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows]))
        config = tiny_config().override({"data.source": "csv", "data.data_dir": str(tmp_path / "all.csv")})
        run.claim(config, open_splits(config.data))

    claim("aaabbb")
    claim("aaabbb")
    with pytest.raises(RunFolderError, match="names and labels of the images"):
        claim("aabbba")


def test_write_atomically_leaves_nothing_behind(tmp_path, monkeypatch):
    write_atomically(tmp_path / "note", "old")
    write_atomically(tmp_path / "note", "new")
    monkeypatch.setattr(disk.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        write_atomically(tmp_path / "note", "newest")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").read_text() == "new"


def test_a_full_disk_leaves_no_partial_row_in_the_metrics(tmp_path):
    script = """
from effnetv2_keras.runs.disk import NoRoomError
from effnetv2_keras.runs.run_folder import RunFolder
from effnetv2_keras.reporting.metrics_log import MetricsLog
log = MetricsLog(RunFolder(folder), step=0, tensorboard=False)
def fails(row):
    try:
        log.add(row)
    except NoRoomError as error:
        print(error)
        return True
for step in range(1, 21):
    log.add({"kind": "train", "step": step})
before = (folder / "metrics.jsonl").read_bytes()
assert fails({"kind": "x" * 100_000, "step": 21})  # its first page fits
assert (folder / "metrics.jsonl").read_bytes() == before
while not fails({"kind": "train", "step": (step := step + 1)}):
    pass
assert (folder / "metrics.csv").read_bytes().endswith(b",\\r\\n")
remount("size=1m")
log = MetricsLog(RunFolder(folder), step=10, tensorboard=False)
log.add({"kind": "train", "step": 11})
print([row["step"] for row in RunFolder(folder).metrics()])
"""
    error, _, steps = run_in_tmpfs(script, tmp_path / "mounted", size="64k").splitlines()
    assert f"Not enough disk space to write {tmp_path}/mounted/metrics.jsonl: 0.1 MB are free. The" in error
    assert "The checkpoints are intact. Free disk space" in error
    assert steps == str([*range(1, 12)])


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path):
    assert disk.free_bytes(tmp_path / "not" / "yet") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_an_address_is_refused_rather_than_made_a_folder():
    with pytest.raises(RunFolderError, match="A run cannot be stored at gs://bucket/run: .*gcsfuse"):
        RunFolder("gs://bucket/run")
