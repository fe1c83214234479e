"""``--mode=search``: draws networks, trains each for a short while, and shows which are worth training to the end."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, Callable

import filelock
import rich.console

from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten, read_yaml
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.errors import ConfigError, Interrupted, UsageError
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.runs.disk import RunFolderError, write_atomically
from effnetv2_keras.search.display import Display
from effnetv2_keras.search.report import write_results
from effnetv2_keras.search.reward import Budget
from effnetv2_keras.search.runner import Asked, NotWorthIt, TooSlow, TrialFailed, TrialRunner, search_size
from effnetv2_keras.search.space import SearchSpace
from effnetv2_keras.search.storage import JOURNAL_FILE, open_storage
from effnetv2_keras.search.study import Proposal, Study
from effnetv2_keras.training.interruption import StopRequest, stop_on_signal

CONFIG_FILE = "search.yaml"
TRIALS = "trials"

_MOST_FAILURES = 5  # in a row, in one process

_CHANGEABLE = ("runtime.", "data.service", "search.trials", "search.storage", "search.keep_checkpoints")
"""Settings, or beginnings of them, that may change when a search goes on."""


def search(
    config: Config, model_dir: str, *, strategy: str = "auto", console: rich.console.Console | None = None
) -> Study:
    """Searches for networks, or takes part in, or goes on with, the search in ``model_dir``.

    Several processes may share one search: those with the same folder, or the same ``search.storage``.

    Args:
        config: recipe, backbone and, in ``config.search``, what to search and how.
        model_dir: the search's folder, created if missing.
        strategy: name of the devices that each trial trains on, as for ``make_strategy``.
        console: where the table is drawn; None is standard output.

    Returns:
        The trials.

    Raises:
        ConfigError, DataError, RunFolderError: for settings, data or a folder that cannot be used.
        UsageError: for limits that no network keeps, a storage that cannot be reached, or if trial after trial fails.
        Interrupted: if a signal asked for the end; trials are saved, and so is what the one at hand had learnt.
    """
    folder, console = pathlib.Path(model_dir), console or rich.console.Console()
    check_folder(folder, config)
    _spare_the_accelerators()
    num_classes = len(open_splits(config.data).train.class_names)
    space = SearchSpace(config.spec, config.search)
    budget = Budget(space, config.search, image_size=search_size(config), num_classes=num_classes)
    with _claimed(folder, config):
        storage = open_storage(config.search.storage, folder)
        name = f"{space.backbone.name}-{_digest(config)}"
        drawing = filelock.FileLock(folder / f"{JOURNAL_FILE}.draw")
        study = Study(space, budget, config.search, storage=storage, name=name, drawing=drawing, seed=config.train.seed)
    display = Display(study, config.search, console)
    runner = TrialRunner(folder / TRIALS, config, space.backbone, strategy)
    save_results = functools.partial(write_results, folder, study, space, config.search)
    with stop_on_signal() as stop, display.shown(), contextlib.closing(runner):
        display.introduce(space)
        _run_trials(study, runner, display, stop, save_results)
    if not stop and not study.trials():
        raise UsageError(
            "No network within the limits was found by drawing; only few of this space keep them. Raise "
            "search.max_parameters or search.max_macs, or offer less: search.layers=-2|-1|0, search.expansions=1|4."
        )
    display.conclude(save_results(), stopped=bool(stop))
    if stop:
        raise Interrupted(f"{stop.name}: all finished trials are saved. The same command goes on with the search.")
    return study


def _run_trials(
    study: Study, runner: TrialRunner, display: Display, stop: StopRequest, save_results: Callable[[], object]
) -> None:
    """Runs one trial after the other until there are enough, or a signal asks for the end.

    Raises:
        UsageError: if trial after trial fails.
    """
    failures = 0
    while not stop:
        for number in study.take_over():
            display.say(f"Trial {number} was interrupted; its network is tried again.")
        proposal = study.next()
        display.update()
        if proposal is None:
            return
        failures = failures + 1 if _evaluate(study, runner, display, proposal, stop) else 0
        display.update()
        save_results()
        if failures == _MOST_FAILURES:
            raise UsageError(
                f"{failures} trials in a row failed, so the networks are probably not the cause. The reasons are above "
                "and in trials.csv in --model_dir. Repair the cause; the same command resumes the search."
            )


def _evaluate(study: Study, runner: TrialRunner, display: Display, proposal: Proposal, stop: StopRequest) -> bool:
    """Runs a trial and notes how it ended; returns whether it failed."""
    display.begin(proposal)

    def on_epoch(epoch: int, accuracy: float, step_time: float) -> bool:
        display.epoch(proposal, epoch, accuracy)
        return study.should_stop(proposal, epoch, accuracy, step_time)

    def on_wait() -> bool:
        study.keep(proposal)
        return bool(stop)

    try:
        study.complete(proposal, runner.run(proposal.spec, on_epoch, on_wait))
    except TooSlow as slow:
        study.exceed(proposal, str(slow), slow.step_time, slow.share)
    except NotWorthIt:
        study.prune(proposal, "others are ahead")
    except TrialFailed as failure:
        study.fail(proposal, str(failure))
        return True
    except BaseException as error:  # not the network's fault: somebody has to go on with it
        study.put_back(proposal)
        if not isinstance(error, Asked):
            raise
    return False


def check_folder(folder: pathlib.Path, config: Config) -> None:
    """Makes sure that a folder is this search's or free, and changes nothing.

    Raises:
        RunFolderError: if it holds a search with other settings, or something else.
    """
    if not (folder / CONFIG_FILE).exists():
        # A process beside this one may be about to make the search.
        if folder.is_dir() and not all(_is_of_a_search(path.name) for path in folder.iterdir()):
            raise RunFolderError(
                f"{folder} is not empty and holds no {CONFIG_FILE}, so it is no search. Choose another --model_dir."
            )
        return
    try:
        before = Config().override(read_yaml((folder / CONFIG_FILE).read_text()))
    except ConfigError as error:
        raise RunFolderError(f"{folder / CONFIG_FILE} cannot be read: {error}") from error
    old, new = _lasting(before), _lasting(config)
    differences = [f"{key} was {old[key]!r} and is now {new[key]!r}" for key in old if old[key] != new[key]]
    if differences:
        raise RunFolderError(
            f"{folder} holds another search: {'; '.join(differences)}. Use the same settings to go on with it (the "
            "number of trials, the storage and runtime settings may change), or another --model_dir."
        )


def _is_of_a_search(name: str) -> bool:
    """Whether a file is one that a search has before anything else."""
    return name.startswith(JOURNAL_FILE) or name == CONFIG_FILE or name.endswith(".partial")


def _lasting(config: Config) -> dict[str, Any]:
    """The settings that stay the same throughout a search."""
    return {key: value for key, value in flatten(config.model_dump()) if not key.startswith(_CHANGEABLE)}


def _digest(config: Config) -> str:
    """Tells searches apart that share a database: other settings, another search; where the data is does not matter."""
    settings = {
        key: value for key, value in _lasting(config).items() if key not in ("data.data_dir", "model.model_name")
    }
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _claimed(folder: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes the folder this search's, once what the context does has succeeded."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        written = config.model_copy(update={"search": config.search.model_copy(update={"storage": None})})
        write_atomically(folder / CONFIG_FILE, written.to_yaml())
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {error.strerror}. Make it a folder that this user may write to, or choose "
            "another --model_dir."
        ) from error
    finally:
        if is_new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _spare_the_accelerators() -> None:
    """Leaves the accelerators to the trials, which are processes of their own."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # in use already, as in a notebook
        tf.config.set_visible_devices([], "GPU")


def run(invocation: Invocation) -> None:
    """Searches with the configuration of the command line, in ``--model_dir``."""
    search(
        invocation.config(),
        invocation.model_dir(),
        strategy=invocation.options.strategy,
        console=invocation.console,
    )
