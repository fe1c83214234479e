import multiprocessing
import os
import threading

import filelock
import optuna
import psutil
import pytest
from optuna.trial import TrialState

from effnetv2_keras.architecture import variants
from effnetv2_keras.config.search_settings import SearchConfig
from effnetv2_keras.errors import UsageError
from effnetv2_keras.search import ownership
from effnetv2_keras.search.ownership import owner_of
from effnetv2_keras.search.reward import Budget
from effnetv2_keras.search.samplers import NOT_TRAINED
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.storage import open_storage
from effnetv2_keras.search.study import Outcome, Study


def open_study(storage=None, *, backbone="efficientnetv2-b0", drawing=None, **settings):
    settings = SearchConfig(**{"trials": 5, **settings})
    space = SearchSpace(variants.get_spec(backbone), settings)
    budget = Budget(space, settings, image_size=64, num_classes=10)
    return Study(space, budget, settings, storage=storage or optuna.storages.InMemoryStorage(), drawing=drawing)


def states(study):
    return [trial.state for trial in study.trials()]


def test_trials_end_in_every_way_and_are_counted():
    study = open_study(sampler="tpe")
    study.complete(study.next(), Outcome(0.5, 2.0, {"seconds": 3.0}))
    study.fail(study.next(), "out of memory")
    study.prune(study.next(), "others are ahead")
    slow = study.next()
    study.exceed(slow, "too slow", step_time=1.4, share=0.4)
    assert states(study) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.PRUNED]
    study.complete(study.next(), Outcome(0.5, 1.0))
    assert study.next() is None
    first, failed, _, slow, last = (trial.user_attrs for trial in study.trials())
    assert first["reward"] == pytest.approx(0.5 * 2**-0.07 * first["relative_parameters"] ** -0.05)
    assert first["seconds"] == 3.0
    assert failed["reason"] == "out of memory"
    assert slow["excess"] == {"max_step_time": 0.4}
    assert owner_of(last) == study.me


def test_a_limit_draws_over_and_is_noted():
    limit = 4.0
    study = open_study(trials=10, max_parameters=limit)
    while proposal := study.next():
        assert proposal.costs.parameters <= limit * 1e6
        study.complete(proposal, Outcome(0.5, 1.0))
    everything = study.optuna_study.get_trials()
    refused = [trial for trial in everything if NOT_TRAINED in trial.user_attrs]
    assert len(everything) - len(refused) == len(study.trials()) == 10
    assert refused
    assert all(trial.user_attrs[NOT_TRAINED] == "exceeds max_parameters" for trial in refused)


def test_a_small_space_ends_without_a_network_twice():
    one = {"operators": ("mbconv",), "kernels": (3,), "layers": (0,), "expansions": (1, 4)}
    study = open_study(trials=100, **one)
    names = []
    while proposal := study.next():
        names.append(proposal.spec.name)
        study.complete(proposal, Outcome(0.5, 1.0))
    assert len(names) == len(set(names)) == 2**6


@pytest.mark.parametrize("storage", ["memory", "journal", "sqlite"])
def test_a_search_goes_on_where_it_was(tmp_path, storage):
    opened = {
        "memory": optuna.storages.InMemoryStorage,
        "journal": lambda: open_storage(None, tmp_path),
        "sqlite": lambda: open_storage(f"sqlite:///{tmp_path}/search.db", tmp_path),
    }[storage]
    shared = opened()
    study = open_study(shared)
    for _ in range(3):
        study.complete(study.next(), Outcome(0.5, 1.0))
    later = open_study(shared if storage == "memory" else opened())
    assert [trial.params for trial in later.trials()] == [trial.params for trial in study.trials()]
    remaining = []
    while proposal := later.next():
        remaining.append(proposal)
        later.complete(proposal, Outcome(0.5, 1.0))
    assert len(remaining) == 2


def test_who_is_gone_is_replaced_with_the_same_network(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage)
    lost = study.next()
    assert study.take_over() == []  # this process lives
    monkeypatch.setitem(study._owner, "created", psutil.Process().create_time() - 100)  # another had our number
    again = study.next()
    assert open_study(storage).take_over() == [again.trial.number]
    later = open_study(storage)
    proposal = later.next()
    assert proposal.spec == again.spec != lost.spec
    assert later.take_over() == []
    assert [trial.number for trial in later.trials()] == [lost.trial.number, proposal.trial.number]


def test_what_is_put_back_is_taken_up_even_when_there_are_enough():
    study = open_study(trials=1)
    first = study.next()
    assert study.next() is None
    study.put_back(first)
    second = study.next()
    assert second.spec == first.spec
    study.complete(second, Outcome(0.5, 1.0))
    assert study.next() is None


def test_another_machine_is_gone_when_it_was_silent_for_long(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage)
    monkeypatch.setitem(study._owner, "host", "elsewhere")
    proposal = study.next()
    assert open_study(storage).take_over() == []
    monkeypatch.setattr(ownership, "SILENCE", 0.0)
    study.keep(proposal)
    assert open_study(storage).take_over() == [proposal.trial.number]
    study.complete(proposal, Outcome(0.5, 1.0))  # it was only slow; the one who took over decides
    assert states(study) == []


def test_processes_that_draw_at_once_do_not_exceed_the_number(tmp_path):
    studies = [
        open_study(
            open_storage(None, tmp_path), trials=6, drawing=filelock.FileLock(tmp_path / "lock", is_singleton=False)
        )
        for _ in range(3)
    ]
    barrier = threading.Barrier(len(studies))

    def work(study):
        barrier.wait()
        while proposal := study.next():
            study.complete(proposal, Outcome(0.5, 1.0))

    threads = [threading.Thread(target=work, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studies[0].trials()) == 6
    assert len({trial.user_attrs["network"] for trial in studies[0].trials()}) == 6


def _draw_and_die(folder):
    open_study(open_storage(None, folder)).next()
    os._exit(9)


def test_a_process_that_was_killed_leaves_its_network_to_the_next(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_draw_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    study = open_study(open_storage(None, tmp_path))
    (lost,) = study.trials()
    assert study.take_over() == [lost.number]
    assert study.next().trial.params == lost.params


def test_successive_halving_stops_those_behind():
    study = open_study(trials=8, pruner="halving")
    stopped = []
    for accuracy in (0.9, 0.8, 0.1, 0.05):
        proposal = study.next()
        stopped.append(study.should_stop(proposal, 1, accuracy, 1.0))
        study.complete(proposal, Outcome(accuracy, 1.0))
    assert stopped[0] is False
    assert stopped[-1] is True


def test_the_front_has_three_figures():
    study = open_study(sampler="nsga2", trials=2)
    proposal = study.next()
    assert study.should_stop(proposal, 1, 0.1, 1.0) is False
    study.complete(proposal, Outcome(0.5, 2.0))
    (trial,) = study.trials()
    assert trial.values == [0.5, 2.0, proposal.costs.relative_parameters]
    assert "reward" in trial.user_attrs


def test_another_aim_is_refused():
    storage = optuna.storages.InMemoryStorage()
    open_study(storage)
    with pytest.raises(
        UsageError, match="objectives of the search in the storage is 1, but search.sampler=nsga2 needs 3"
    ):
        open_study(storage, sampler="nsga2")


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/at/all.db", "no url", "mysql+nodriver://me:secret@host/db", "postgresql://a:secret@b/c"]
)
def test_a_storage_that_cannot_be_reached_is_named_without_its_password(tmp_path, url):
    with pytest.raises(UsageError, match=r"The search's storage .* cannot be opened: .*Check search.storage") as error:
        open_storage(url, tmp_path)
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wanted_trial_is_one_of_the_first(monkeypatch):
    study = open_study(trials=1)
    assert study._is_wanted(0)
    study.next()
    assert not study._is_wanted(1)


def draw_without_a_name(study):
    """Leaves the trial of a process that is killed immediately after its draw."""
    return study.optuna_study.ask(study._distributions)


def test_a_draw_of_nobody_is_taken_over_after_a_while(monkeypatch):
    study = open_study(trials=1)
    lost = draw_without_a_name(study)
    assert study.take_over() == []
    monkeypatch.setattr(ownership, "_DRAWING", 0.0)
    assert study.take_over() == [lost.number]
    assert study.next().trial.params == lost.params


def test_a_trial_that_failed_for_no_reason_is_taken_up(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage, trials=1)
    monkeypatch.setitem(study._owner, "created", 0.0)
    proposal = study.next()
    study.optuna_study.tell(proposal.trial, state=TrialState.FAIL)  # and then the process was killed
    later = open_study(storage, trials=1)
    assert later.take_over() == [proposal.trial.number]
    assert later.take_over() == []
    assert later.next().spec == proposal.spec


@pytest.mark.parametrize("end", ["fail", "prune"])
def test_a_network_without_a_result_is_not_drawn_again(end):
    one = {"operators": ("mbconv",), "kernels": (3,), "layers": (0,), "expansions": (1, 4)}
    study = open_study(trials=100, **one)
    names = []
    while proposal := study.next():
        names.append(proposal.spec.name)
        getattr(study, end)(proposal, "for a reason")
    assert len(names) == len(set(names)) > 50


def test_the_last_epoch_is_not_stopped():
    study = open_study(trials=8, pruner="halving", epochs=1)
    for accuracy in (0.9, 0.8, 0.1, 0.05):
        proposal = study.next()
        assert study.should_stop(proposal, 1, accuracy, 1.0) is False
        study.complete(proposal, Outcome(accuracy, 1.0))


def test_who_was_taken_over_stops_quietly(monkeypatch):
    study = open_study()
    proposal = study.next()
    study.put_back(proposal)
    monkeypatch.setattr(ownership, "SILENCE", -1.0)
    study.keep(proposal)
    assert study.should_stop(proposal, 1, 0.5, 1.0) is True
    study.prune(proposal, "others are ahead")
    assert study.next().spec == proposal.spec
