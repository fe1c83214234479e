"""Files of a search that are damaged or gone."""

from __future__ import annotations

import json

import pytest

from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.runs.disk import RunFolderError
from effnetv2_keras.search import trial
from effnetv2_keras.search.search import check_folder
from effnetv2_keras.search.storage import open_storage

DAMAGES = [
    b"",
    b"\xff\x00\x93",
    b'{"step_time": 1',
    b"[1]",
    b"null",
    b"NaN",
    b"[" * 1500,
    b"9" * 5000,
    b'{"op_code": []}',
]


@pytest.mark.parametrize("content", DAMAGES)
def test_damaged_files_of_a_search_are_named(tmp_path, content):
    for name in (trial.RESULT, trial.STEP_TIME, "search.yaml", "journal.log"):
        (tmp_path / name).write_bytes(content + b"\n" + content)
    with pytest.raises(UsageError, match=r"result.json cannot be read: (?s:.*)Remove the file"):
        trial.read_result(tmp_path)
    with pytest.raises(UsageError, match=r"step_time.json cannot be read: (?s:.*)Remove the file"):
        trial.read_step_time(tmp_path)
    with pytest.raises(RunFolderError, match=r"search.yaml cannot be read: (?s:.*)Restore an intact copy"):
        check_folder(tmp_path, Config())
    if content:
        with pytest.raises(UsageError, match=r"journal.log cannot be read: (?s:.*)Restore an intact copy"):
            open_storage(None, tmp_path)


@pytest.mark.parametrize("change", [{"accuracy": "0.5"}, {"step_time": None}, {"seconds": float("inf")}, {"metric": 3}])
def test_a_result_with_a_wrong_value_is_named(tmp_path, change):
    good = {"step_time": 1.5, "accuracy": 0.5, "metric": "top1", "images": 8, "seconds": 2.5}
    (tmp_path / trial.RESULT).write_text(json.dumps(good))
    assert trial.read_result(tmp_path) == good
    (tmp_path / trial.RESULT).write_text(json.dumps({**good, **change}))
    with pytest.raises(UsageError, match=f"it lacks {next(iter(change))}"):
        trial.read_result(tmp_path)


def test_a_search_whose_journal_is_gone_does_not_begin_anew(tmp_path):
    (tmp_path / "search.yaml").write_text(Config().to_yaml())
    check_folder(tmp_path, Config())
    (tmp_path / "trials" / "a").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="has trials of a search but no journal.log"):
        check_folder(tmp_path, Config())
    check_folder(tmp_path, Config().override({"search.storage": "sqlite:///somewhere"}))
