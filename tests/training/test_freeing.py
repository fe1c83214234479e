from __future__ import annotations

import threading

from effnetv2_keras.data.splits import Splits
from effnetv2_keras.training import evaluation, run
from effnetv2_keras.training.input import free_in_background
from tests.data.test_pipeline import array_source
from tests.short_runs import UNCHANGED, tiny_config, train_tiny


def test_nobody_waits_for_an_iterator_to_be_freed():
    started, gate, freed = threading.Event(), threading.Event(), threading.Event()

    class Iterator:
        def __del__(self):
            started.set()
            gate.wait(60)
            freed.set()

    free_in_background([Iterator()])
    assert started.wait(60)
    assert not freed.is_set()
    gate.set()
    assert freed.wait(60)


def test_a_run_waits_for_none_of_its_iterators(tmp_path, monkeypatch):
    kinds = []

    def note(box):
        kinds.append(type(box[0]).__name__)
        free_in_background(box)

    monkeypatch.setattr(run, "free_in_background", note)
    monkeypatch.setattr(evaluation, "free_in_background", note)
    train_tiny(tiny_config(UNCHANGED), tmp_path / "run", splits=Splits(array_source(24), array_source(24)))
    of_stages = [kind for kind in kinds if kind != "NoneType"]
    assert len(of_stages) == 2 + 2  # two stages, two evaluations
    assert all("Iterator" in kind for kind in of_stages)
