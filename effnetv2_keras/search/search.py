"""``--mode=search``: draws networks, trains each for a few epochs, and shows the best ones."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Callable

import filelock
import rich.console

from effnetv2_keras.basics.small_files import read_text
from effnetv2_keras.config import Config
from effnetv2_keras.config.overrides import flatten
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.errors import Interrupted, UsageError
from effnetv2_keras.modes.invocation import Invocation
from effnetv2_keras.runs.disk import RunFolderError, write_atomically
from effnetv2_keras.runs.run_folder import whole_config
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
"""Settings, or prefixes of settings, that may change when a search is resumed."""


def search(
    config: Config, model_dir: str, *, strategy: str = "auto", console: rich.console.Console | None = None
) -> Study:
    """Starts a search for networks, or joins or resumes the search in ``model_dir``.

    Processes with the same folder or the same ``search.storage`` share one search.

    Args:
        config: configuration with recipe, backbone and search settings.
        model_dir: folder of the search, created if missing.
        strategy: name of the distribution strategy of each trial, as for ``make_strategy``.
        console: output for the table; None is standard output.

    Returns:
        The study with all trials.

    Raises:
        ConfigError, DataError, RunFolderError: if the settings, data or folder cannot be used.
        UsageError: if no network is within the limits, the storage cannot be reached, or several trials fail in a row.
        Interrupted: if a signal ends the search. Finished trials and the state of the current trial are saved.
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
            "No network within the limits was found, because too few networks of the space are within them. Raise "
            "search.max_parameters or search.max_macs, or use a space of smaller networks, such as "
            "search.layers=-2|-1|0,search.expansions=1|4."
        )
    display.conclude(save_results(), stopped=bool(stop))
    if stop:
        raise Interrupted(f"{stop.name}: all finished trials are saved. The same command resumes the search.")
    return study


def _run_trials(
    study: Study, runner: TrialRunner, display: Display, stop: StopRequest, save_results: Callable[[], object]
) -> None:
    """Runs trials until there are enough, or a signal ends the search.

    Raises:
        UsageError: if several trials fail in a row.
    """
    failures = 0
    while not stop:
        for number in study.take_over():
            display.say(f"Trial {number} was interrupted; its network is queued again.")
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
    """Runs a trial and records its result; returns whether it failed."""
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
        study.prune(proposal, "other trials are better")
    except TrialFailed as failure:
        study.fail(proposal, str(failure))
        return True
    except BaseException as error:  # not caused by the network, so the trial must be resumed
        study.put_back(proposal)
        if not isinstance(error, Asked):
            raise
    return False


def check_folder(folder: pathlib.Path, config: Config) -> None:
    """Checks that a folder is empty or contains this search; changes nothing.

    Raises:
        RunFolderError: if the folder contains a search with other settings, or other files.
    """
    if not (folder / CONFIG_FILE).exists():
        # Another process may be creating the search at this moment.
        if folder.is_dir() and not all(_is_of_a_search(path.name) for path in folder.iterdir()):
            raise RunFolderError(
                f"{folder} is not empty and has no {CONFIG_FILE}, so it is not a search. Choose another --model_dir."
            )
        return
    try:
        before = whole_config(read_text(folder / CONFIG_FILE))
    except (ValueError, OverflowError, RecursionError, TypeError) as error:  # the last three for absurd numbers
        raise RunFolderError(
            f"{folder / CONFIG_FILE} cannot be read: {error or type(error).__name__}. Restore an intact copy of it."
        ) from error
    is_lost = config.search.storage is None and not (folder / JOURNAL_FILE).exists()
    if is_lost and (folder / TRIALS).is_dir() and any((folder / TRIALS).iterdir()):
        raise RunFolderError(
            f"{folder} has trials of a search but no {JOURNAL_FILE}, the list of their results. Restore it, "
            "set search.storage if the search used a database, or choose another --model_dir for a new search."
        )
    old, new = _lasting(before), _lasting(config)
    differences = [f"{key} was {old[key]!r} and is now {new[key]!r}" for key in old if old[key] != new[key]]
    if differences:
        raise RunFolderError(
            f"{folder} contains another search: {'; '.join(differences)}. Use the same settings to resume it (only the "
            "number of trials, the storage and runtime settings may change), or another --model_dir."
        )


def _is_of_a_search(name: str) -> bool:
    """Returns whether a file is one of the first files of a search."""
    return name.startswith(JOURNAL_FILE) or name == CONFIG_FILE or name.endswith(".partial")


def _lasting(config: Config) -> dict[str, Any]:
    """Returns the settings that must not change when a search is resumed."""
    lasting = {key: value for key, value in flatten(config.model_dump()) if not key.startswith(_CHANGEABLE)}
    if config.data.data_dir and "://" not in config.data.data_dir:
        lasting["data.data_dir"] = os.path.realpath(config.data.data_dir)  # the same folder in any spelling
    return lasting


def _digest(config: Config) -> str:
    """Returns a digest of the settings without the location of the data; it identifies a search in a database."""
    settings = {
        key: value for key, value in _lasting(config).items() if key not in ("data.data_dir", "model.model_name")
    }
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _claimed(folder: pathlib.Path, config: Config) -> Iterator[None]:
    """Creates the folder, and writes the configuration after the ``with`` block has succeeded."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        written = config.model_copy(update={"search": config.search.model_copy(update={"storage": None})})
        write_atomically(folder / CONFIG_FILE, written.to_yaml())
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: {error.strerror}. Make the folder writable for this user, or choose another "
            "--model_dir."
        ) from error
    finally:
        if is_new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _spare_the_accelerators() -> None:
    """Hides the GPUs from this process, because the trials run in separate processes that need them."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow already uses them, as in a notebook
        tf.config.set_visible_devices([], "GPU")


def run(invocation: Invocation) -> None:
    """Searches in ``--model_dir`` with the configuration of the command line."""
    search(
        invocation.config(),
        invocation.model_dir(),
        strategy=invocation.options.strategy,
        console=invocation.console,
    )
