"""The weights of the classes of a run: kept in its folder, so that it is resumed with those with which it began."""

import io
import json

import numpy as np
import pytest
import rich.console
import tensorflow as tf

from effnetv2_keras.data.sources.base import ArraySource, DataError
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.runs.run_folder import RunFolder, RunFolderError
from effnetv2_keras.training import loop
from effnetv2_keras.training.class_weights import weights_of_run
from tests.data.test_sharding import Numbers
from tests.short_runs import tiny_config


def splits_of(counts=(16, 6, 2)):
    train = ArraySource(np.zeros([sum(counts), 8, 8, 3], np.uint8), np.repeat([0, 1, 2], counts), ("a", "b", "c"))
    return Splits(train, ArraySource(np.zeros([3, 8, 8, 3], np.uint8), np.arange(3), ("a", "b", "c")))


def weights_of(chosen, folder, source):
    config = tiny_config().override({"train.class_weights": chosen})
    return weights_of_run(config, RunFolder(folder), tf.distribute.get_strategy(), source)


def test_a_resumed_run_has_the_weights_with_which_it_began(tmp_path):
    splits, file, run = splits_of(), tmp_path / "weights.json", tmp_path / "run"
    file.write_text('{"a": 1, "b": 2, "c": 4}')
    begun = weights_of(str(file), run, splits.train)
    assert json.loads((run / "class_weights.json").read_text()) == dict(zip("abc", begun))
    RunFolder(run).claim(tiny_config().override({"train.class_weights": str(file)}), splits)
    file.write_text('{"a": 10, "b": 20, "c": 40}')  # the same ratios
    assert weights_of(str(file), run, splits.train) == begun
    file.write_text('{"a": 1, "b": 2, "c": 5}')
    with pytest.raises(RunFolderError, match=r"weights.json has other weights than when the run in .*run began"):
        weights_of(str(file), run, splits.train)
    file.unlink()
    assert weights_of(str(file), run, splits.train) == begun
    (run / "class_weights.json").write_text('{"a": 1.0}')
    with pytest.raises(RunFolderError, match=r"cannot be read\. .*lacks a weight of the classes: b, c\..*from a copy"):
        weights_of(str(file), run, splits.train)


def test_records_are_counted_once_for_a_run(tmp_path):
    begun = weights_of("balanced", tmp_path, Numbers(10))
    (tmp_path / "config.yaml").write_text("")
    resumed = Numbers(10)
    assert weights_of("balanced", tmp_path, resumed) == begun
    assert resumed.known_labels is None
    assert begun == pytest.approx([10 / 12, 10 / 9, 10 / 9])


def test_a_run_without_weights_writes_none(tmp_path):
    assert weights_of(None, tmp_path / "run", splits_of().train) == ()
    assert not (tmp_path / "run").exists()


class _EnoughError(Exception):
    """Ends a run before its network is made."""


def test_training_begins_with_what_it_says_about_the_classes(tmp_path, monkeypatch):
    given = []

    def no_run(*arguments):
        given.append(arguments[-1])
        raise _EnoughError

    monkeypatch.setattr(loop, "Run", no_run)
    output = io.StringIO()

    def begin(changes):
        console = rich.console.Console(file=output, width=80)
        loop.train(tiny_config(changes), tmp_path / "run", splits=splits_of(), console=console)

    with pytest.raises(_EnoughError):
        begin("train.class_weights=balanced")
    assert given == [pytest.approx((0.5, 24 / 18, 4.0))]
    assert output.getvalue() == (
        "Unequal classes: 16 training images of a, but 2 of c.\nWeights in the loss (balanced): 0.5 (a) to 4 (c).\n"
    )
    with pytest.raises(DataError, match="absent.csv is neither"):
        begin("train.class_weights=absent.csv")
    assert len(given) == 1
